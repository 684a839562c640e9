"""Rectangles of an image."""

import jax
import jax.numpy as jnp


def window(
    shape: tuple[int, ...],
    top: jax.Array,
    left: jax.Array,
    bottom: jax.Array,
    right: jax.Array,
) -> jax.Array:
    """bool [H, W]: rows from `top` to before `bottom`, columns from `left` to before
    `right`, which may lie beyond the borders; `shape` is (H, W, ...)."""
    row, column = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None]
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)
