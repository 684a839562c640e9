"""A grouped convolution as several convolutions without groups, for CPUs.

Narrow groups are merged, as long as they stay below `MERGED_CHANNELS` channels, by a
block diagonal kernel: it multiplies by zeros, and is faster than many small products.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

MERGED_CHANNELS = 64


def split_groups(groups: int, width: int, *arrays: jax.Array) -> Iterator[tuple]:
    """Yields a number of groups, and of each array the channels that belong to them.

    Channels are the last axis; `width` is that of a group of input channels.
    """
    merged = max(1, MERGED_CHANNELS // width)
    for first in range(0, groups, merged):
        last = min(first + merged, groups)
        yield last - first, *(_channels(a, groups, first, last) for a in arrays)


def block_diagonal(kernel: jax.Array, groups: int) -> jax.Array:
    """The kernel without groups that does the same: [KH, KW, groups · C, O]."""
    if groups == 1:
        return kernel
    *size, inputs, features = kernel.shape
    blocks = kernel.reshape(*size, 1, inputs, groups, features // groups)
    diagonal = jnp.eye(groups, dtype=kernel.dtype)[:, None, :, None]
    blocks = blocks * jnp.expand_dims(diagonal, range(len(size)))
    return blocks.reshape(*size, groups * inputs, features)


def diagonal_blocks(kernel: jax.Array, groups: int) -> jax.Array:
    """The inverse of `block_diagonal`; what is in no block is dropped."""
    if groups == 1:
        return kernel
    *size, channels, features = kernel.shape
    blocks = kernel.reshape(
        *size, groups, channels // groups, groups, features // groups
    )
    diagonal = jnp.einsum("hwgigo->hwigo", blocks)
    return diagonal.reshape(*size, channels // groups, features)


def _channels(array: jax.Array, groups: int, first: int, last: int) -> jax.Array:
    width = array.shape[-1] // groups
    return array[..., first * width : last * width]
