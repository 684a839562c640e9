"""What a moving window sees of an image, and convolutions and their gradients by that.

For CPUs: products over the patches under the kernel (im2col and col2im; Chellapilla et
al. 2006, High Performance Convolutional Neural Networks for Document Processing) where
the window skips pixels, or where few pixels meet many channels.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nfnet_jax.ops.padding import Pairs
from nfnet_jax.ops.precision import at_least_float32


class Window(NamedTuple):
    """`size` pixels, moving in steps of `strides` over an image with `padding`."""

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: Pairs

    def places(self, image_size: tuple[int, ...]) -> tuple[int, ...]:
        """How many places it has along height and width."""
        return tuple(
            (pixels + sum(pads) - size) // stride + 1
            for pixels, pads, size, stride in zip(
                image_size, self.padding, self.size, self.strides, strict=True
            )
        )

    def offsets(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.size[0]) for j in range(self.size[1])]


def views(x: jax.Array, window: Window, fill: float = 0.0) -> list[jax.Array]:
    """Of every pixel of the window what it sees: [N, H, W, C] -> each [N, H', W', C].

    `fill` is the padding's value.
    """
    height, width = window.places(x.shape[1:3])
    down, right = window.strides
    pairs = [(0, 0), *window.padding, (0, 0)]
    x = jnp.pad(x, pairs, constant_values=fill)
    return [
        x[:, i : i + height * down : down, j : j + width * right : right]
        for i, j in window.offsets()
    ]


def add_views(
    seen: Iterable[jax.Array], window: Window, image_size: tuple[int, ...]
) -> jax.Array:
    """The transpose of `views`: every pixel's sum over the places that saw it.

    Pixels that the strides keep apart are never seen at once. They are summed apart,
    lattice by lattice, because adding to every second pixel is slow.
    """
    down, right = window.strides
    (top, bottom), (left, _) = window.padding
    rows = -(-(top + image_size[0] + bottom) // down)
    columns = -(-(sum(window.padding[1]) + image_size[1]) // right)
    sums: dict[tuple[int, int], jax.Array] = {}
    for (i, j), part in zip(window.offsets(), seen, strict=True):
        count, height, width, channels = part.shape
        (below, row), (beside, column) = divmod(i, down), divmod(j, right)
        margins = (
            (below, rows - height - below),
            (beside, columns - width - beside),
        )
        part = jnp.pad(part, ((0, 0), *margins, (0, 0)))
        sums[row, column] = sums.get((row, column), 0) + part
    unseen = jnp.zeros_like(part)
    lattices = [
        jnp.stack([sums.get((row, column), unseen) for column in range(right)], 3)
        for row in range(down)
    ]
    whole = jnp.stack(lattices, 2)
    whole = whole.reshape(count, rows * down, columns * right, channels)
    return whole[:, top : top + image_size[0], left : left + image_size[1]]


def convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """The patches, [N · H' · W', KH · KW · C], times the kernel as a matrix."""
    return jnp.einsum(
        "nhwk,ko->nhwo",
        _patches(x, window),
        kernel.reshape(-1, kernel.shape[-1]),
        preferred_element_type=at_least_float32(x.dtype),
    ).astype(x.dtype)


def kernel_gradient(x: jax.Array, grad: jax.Array, window: Window) -> jax.Array:
    """Gradient of the kernel [KH, KW, C, O] from x [N, H, W, C] and the output's: the
    patches, transposed, times [N · H' · W', O]."""
    patches, features = _patches(x, window), grad.shape[-1]
    product = jnp.matmul(
        patches.reshape(-1, patches.shape[-1]).T,
        grad.reshape(-1, features),
        preferred_element_type=at_least_float32(grad.dtype),
    )
    return product.reshape(*window.size, x.shape[-1], features).astype(grad.dtype)


def input_gradient(
    x_shape: tuple[int, ...], kernel: jax.Array, grad: jax.Array, window: Window
) -> jax.Array:
    """Gradient of the input [N, H, W, C]: that of the patches, a product with the
    transposed kernel, added up where they overlap."""
    patches = jnp.einsum(
        "nhwo,ko->nhwk",
        grad,
        kernel.reshape(-1, kernel.shape[-1]),
        preferred_element_type=at_least_float32(grad.dtype),
    )
    seen = jnp.split(patches, len(window.offsets()), -1)
    return add_views(seen, window, x_shape[1:3]).astype(grad.dtype)


def _patches(x: jax.Array, window: Window) -> jax.Array:
    """What the window sees: [N, H, W, C] -> [N, H', W', KH · KW · C]."""
    # Fused with a product, they would be computed many times.
    return lax.optimization_barrier(jnp.concatenate(views(x, window), -1))
