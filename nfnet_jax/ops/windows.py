"""Windows over images: sizes, strides, padding, patches, and convolutions of patches.

For CPUs: a convolution is a product of a kernel with the patches under it (im2col and
col2im; Chellapilla, Puri, Simard 2006, "High performance convolutional neural networks
for document processing"), which is fast where the window skips pixels, or where few
pixels meet many channels.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nfnet_jax.ops.precision import Images, Kernel, at_least_float32
from nfnet_jax.utils.jax_versions import CPU_MULTIPLIES_BFLOAT16

Pair = tuple[int, int]
Pairs = tuple[tuple[int, int], tuple[int, int]]
"""((top, bottom), (left, right))."""
Padding = str | int | Sequence[int | Sequence[int]]
"""A name of `PADDINGS`, or pixels: of every side, or by axis, or as `Pairs`."""
PADDINGS = ("SAME", "VALID", "symmetric")


def pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """Returns `value` along height and width; a single number is both.

    Raises:
      ValueError: not one or two whole numbers of at least 1; the message calls them
        `name`.
    """
    try:
        height, width = _twice(value)
        if min(pixels := (operator.index(height), operator.index(width))) >= 1:
            return pixels
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"{name} {value!r}: expected a whole number of at least 1, or two of them"
    )


def padding_pixels(
    padding: Padding,
    image_size: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
) -> Pairs:
    """Padding in pixels: "SAME" (as XLA defines it), "VALID", "symmetric" or numbers.

    "symmetric" is (size - 1) // 2 on every side, whatever the stride.

    Raises:
      ValueError: another name, or numbers that are no `Padding`.
    """
    if isinstance(padding, str) and padding == "symmetric":
        above, beside = ((size - 1) // 2 for size in window)
        return (above, above), (beside, beside)
    if isinstance(padding, str) and padding in PADDINGS:
        pads = lax.padtype_to_pads(image_size, window, strides, padding)
        height, width = ((int(low), int(high)) for low, high in pads)
        return height, width
    try:
        (top, bottom), (left, right) = map(_twice, _twice(padding))
        index = operator.index
        pixels = (index(top), index(bottom)), (index(left), index(right))
        if min(map(min, pixels)) >= 0:
            return pixels
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"padding {padding!r}: expected one of {', '.join(PADDINGS)}, a number of "
        "pixels, or ((top, bottom), (left, right))"
    )


def _twice(value: Any) -> Any:
    """Repeats a single number; keeps several."""
    return value if isinstance(value, Iterable) else (value, value)


class Window(NamedTuple):
    """`size` pixels, moving in steps of `strides` over an image with `padding`."""

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: Pairs

    def places(self, image_size: tuple[int, ...]) -> tuple[int, ...]:
        """Counts the places of the window along height and width."""
        return tuple(
            (pixels + sum(pads) - size) // stride + 1
            for pixels, pads, size, stride in zip(
                image_size, self.padding, self.size, self.strides, strict=True
            )
        )

    def offsets(self) -> list[tuple[int, int]]:
        """Lists the pixels of the window, row by row."""
        return [(i, j) for i in range(self.size[0]) for j in range(self.size[1])]


def views(x: Images, window: Window, fill: float = 0.0) -> list[Images]:
    """Pixels of the image, padded with `fill`, under each pixel of the window."""
    height, width = window.places(x.shape[1:3])
    down, right = window.strides
    pairs = [(0, 0), *window.padding, (0, 0)]
    x = jnp.pad(x, pairs, constant_values=fill)
    return [
        x[:, i : i + height * down : down, j : j + width * right : right]
        for i, j in window.offsets()
    ]


def add_views(
    seen: Iterable[Images], window: Window, image_size: tuple[int, ...]
) -> Images:
    """Transpose of `views`: sums for every pixel of the image what was seen of it.

    No place of the window sees two pixels that differ modulo the strides. Each such
    lattice of pixels is summed separately, because adding to every second pixel is
    slow.
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


def convolve_patches(x: Images, kernel: Kernel, window: Window) -> Images:
    """Product of the patches, [N · H2 · W2, KH · KW · C], with the kernel."""
    return jnp.einsum(
        "nhwk,ko->nhwo",
        _patches(x, window),
        kernel.reshape(-1, kernel.shape[-1]),
        preferred_element_type=at_least_float32(x.dtype),
    ).astype(x.dtype)


def kernel_gradient(x: Images, grad: Images, window: Window) -> Kernel:
    """Product of the transposed patches with the gradient of the output."""
    patches, features = _patches(x, window), grad.shape[-1]
    product = jnp.matmul(
        patches.reshape(-1, patches.shape[-1]).T,
        grad.reshape(-1, features),
        preferred_element_type=at_least_float32(grad.dtype),
    )
    return product.reshape(*window.size, x.shape[-1], features).astype(grad.dtype)


def input_gradient(
    x_shape: tuple[int, ...], kernel: Kernel, grad: Images, window: Window
) -> Images:
    """Product of the output's gradient with the transposed kernel, patches summed."""
    wide = at_least_float32(grad.dtype)
    factors = [grad, kernel.reshape(-1, kernel.shape[-1])]
    if not CPU_MULTIPLIES_BFLOAT16:
        factors = [factor.astype(wide) for factor in factors]
    patches = jnp.einsum("nhwo,ko->nhwk", *factors, preferred_element_type=wide)
    seen = jnp.split(patches, len(window.offsets()), -1)
    return add_views(seen, window, x_shape[1:3]).astype(grad.dtype)


def _patches(x: jax.Array, window: Window) -> jax.Array:
    """Concatenates the views: [N, H, W, C] -> [N, H2, W2, KH · KW · C]."""
    # Fused with a product, they would be computed many times.
    return lax.optimization_barrier(jnp.concatenate(views(x, window), -1))
