"""The order of training examples, computed where it is needed."""

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

ROUNDS = 8
Array = TypeVar("Array", jax.Array, np.ndarray)


def shuffled_indices(key: jax.Array, positions: jax.Array, size: int) -> jax.Array:
    """Examples at the given positions of an endless stream of shuffled epochs.

    Every epoch (`size` consecutive positions) is a pseudorandom permutation of its own,
    evaluated point by point: a Feistel network over the smallest even number of bits
    that holds `size`, applied again until it lands below `size` (cycle walking; Black
    and Rogaway 2002). So a batch costs what a batch costs, whatever the data set's
    size, and depends on nothing but the seed and the positions.

    Args:
      key: of the run.
      positions: uint32 [N], counted from the start of training.
      size: number of examples in the data set.

    Returns:
      int32 [N] indices below `size`.
    """
    half = _half_bits(size)
    keys = _round_keys(key, positions // size)

    def walk(x):
        return jnp.where(x < size, x, _permute(x, keys, half))

    first = _permute((positions % size).astype(jnp.uint32), keys, half)
    return jax.lax.while_loop(lambda x: jnp.any(x >= size), walk, first).astype(
        jnp.int32
    )


def drawn_positions(
    positions: jax.Array, per_image: int, repeats: int
) -> tuple[jax.Array, jax.Array]:
    """What is drawn for the images at some positions of a run.

    Image p is made of `per_image` draws, numbered from p · per_image. `repeats`
    consecutive images are made of the same examples.

    Returns:
      The numbers of the draws, by which they are augmented, and their places in the
      shuffled stream of examples: uint32 [N · per_image] each.
    """
    member = jnp.arange(per_image, dtype=jnp.uint32)[None]
    draws = positions[:, None] * per_image + member
    places = positions[:, None] // repeats * per_image + member
    return draws.reshape(-1), places.reshape(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class HostOrder:
    """`shuffled_indices` in NumPy, for processes that leave JAX alone.

    `round_keys`: uint32 [epochs, ROUNDS], from `host_order`.
    """

    size: int
    round_keys: np.ndarray

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """int64 [N] indices at positions [N], as `shuffled_indices` gives them."""
        half = _half_bits(self.size)
        keys = self.round_keys[positions // self.size]
        x = _permute((positions % self.size).astype(np.uint32), keys, half)
        while (outside := x >= self.size).any():
            x[outside] = _permute(x[outside], keys[outside], half)
        return x.astype(np.int64)


def host_order(key: jax.Array, size: int, positions: int) -> HostOrder:
    """The order of the first `positions` positions, see `shuffled_indices`."""
    epochs = jnp.arange(-(-positions // size), dtype=jnp.uint32)
    return HostOrder(size, np.asarray(jax.jit(_round_keys)(key, epochs)))


def _round_keys(key: jax.Array, epochs: jax.Array) -> jax.Array:
    return jax.vmap(
        lambda epoch: jax.random.bits(jax.random.fold_in(key, epoch), (ROUNDS,))
    )(epochs)


def _half_bits(size: int) -> int:
    return max(1, ((size - 1).bit_length() + 1) // 2)


def _permute(x: Array, round_keys: Array, half: int) -> Array:
    """A Feistel network over 2 · `half` bits; uint32 [N] and [N, ROUNDS]."""
    mask = np.uint32((1 << half) - 1)
    left: Array = x >> half
    right: Array = x & mask
    for i in range(ROUNDS):
        left, right = right, left ^ (_hash(right ^ round_keys[:, i]) & mask)
    return left << half | right


def _hash(x: Array) -> Array:
    """The finalizer of MurmurHash3: every bit of the input flips half of the output."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
