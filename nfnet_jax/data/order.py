"""The order of training examples, computed where it is needed."""

import jax
import jax.numpy as jnp

ROUNDS = 8


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
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = jnp.uint32((1 << half) - 1)
    epochs = positions // size
    round_keys = jax.vmap(
        lambda epoch: jax.random.bits(jax.random.fold_in(key, epoch), (ROUNDS,))
    )(epochs)

    def permute(x):
        left, right = x >> half, x & mask
        for i in range(ROUNDS):
            left, right = right, left ^ (_hash(right ^ round_keys[:, i]) & mask)
        return left << half | right

    def walk(x):
        return jnp.where(x < size, x, permute(x))

    first = permute((positions % size).astype(jnp.uint32))
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
    member = jnp.arange(per_image, dtype=jnp.uint32)
    draws = positions[:, None] * per_image + member
    places = positions[:, None] // repeats * per_image + member
    return draws.reshape(-1), places.reshape(-1)


def _hash(x: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3: every bit of the input flips half of the output."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
