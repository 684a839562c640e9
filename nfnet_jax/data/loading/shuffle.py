"""Shuffled epochs by a Feistel network, evaluated point by point.

Every epoch is a pseudorandom permutation of its own: a Feistel network over the
smallest even number of bits that holds the number of examples, applied again until it
lands below it (cycle walking; Black, Rogaway 2002, "Ciphers with arbitrary finite
domains"). So the order of a batch costs the same for a data set of any size, and
depends on nothing but the seed and the stream indices.
"""

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

ROUNDS = 8
Array = TypeVar("Array", jax.Array, np.ndarray)


def example_draws(example_ids: jax.Array, per_example: int) -> jax.Array:
    """Ids of the draws for some examples [N]: uint32 [N · per_example]."""
    member = jnp.arange(per_example, dtype=jnp.uint32)[None]
    return (example_ids[:, None] * per_example + member).reshape(-1)


def stream_index(draw_ids: Array, per_example: int, repeats: int) -> Array:
    """Places of some draws in the stream of shuffled epochs.

    `repeats` consecutive examples are drawn from the same places.
    """
    example_ids, member = draw_ids // per_example, draw_ids % per_example
    return example_ids // repeats * per_example + member


def feistel_shuffle(key: jax.Array, stream_indices: jax.Array, size: int) -> jax.Array:
    """Rows, int32 [N], of a data set of `size` examples, at some places, uint32 [N], of
    the endless stream of its shuffled epochs."""
    half = _half_bits(size)
    keys = _round_keys(key, stream_indices // size)

    def walk(x):
        return jnp.where(x < size, x, _permute(x, keys, half))

    first = _permute((stream_indices % size).astype(jnp.uint32), keys, half)
    return jax.lax.while_loop(lambda x: jnp.any(x >= size), walk, first).astype(
        jnp.int32
    )


@dataclasses.dataclass(frozen=True, eq=False)
class HostFeistelShuffle:
    """`feistel_shuffle` on the host, for workers; can be pickled.

    `round_keys`: uint32 [epochs, ROUNDS].
    """

    size: int
    round_keys: np.ndarray

    def __call__(self, stream_indices: np.ndarray) -> np.ndarray:
        """Rows int64 [N] at some places [N]."""
        half = _half_bits(self.size)
        keys = self.round_keys[stream_indices // self.size]
        x = _permute((stream_indices % self.size).astype(np.uint32), keys, half)
        while (outside := x >= self.size).any():
            x[outside] = _permute(x[outside], keys[outside], half)
        return x.astype(np.int64)


def host_feistel_shuffle(key: jax.Array, size: int, length: int) -> HostFeistelShuffle:
    """`feistel_shuffle` of the first `length` places of the stream, for the host."""
    epochs = jnp.arange(-(-length // size), dtype=jnp.uint32)
    return HostFeistelShuffle(size, np.asarray(jax.jit(_round_keys)(key, epochs)))


def _round_keys(key: jax.Array, epochs: jax.Array) -> jax.Array:
    return jax.vmap(
        lambda epoch: jax.random.bits(jax.random.fold_in(key, epoch), (ROUNDS,))
    )(epochs)


def _half_bits(size: int) -> int:
    return max(1, ((size - 1).bit_length() + 1) // 2)


def _permute(x: Array, round_keys: Array, half: int) -> Array:
    """Feistel network over 2 · `half` bits of x [N], with round keys [N, ROUNDS]."""
    mask = np.uint32((1 << half) - 1)
    left: Array = x >> half
    right: Array = x & mask
    for i in range(ROUNDS):
        left, right = right, left ^ (_hash(right ^ round_keys[:, i]) & mask)
    return left << half | right


def _hash(x: Array) -> Array:
    """Finalizer of MurmurHash3: each input bit flips half of the output bits."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
