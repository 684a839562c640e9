"""3x3 convolutions with stride 1 by minimal filtering, for CPUs.

Winograd's algorithm F(4, 3) (Lavin and Gray 2015, arXiv 1509.09308), along the height
only: four output rows y come from six input rows d by six products instead of twelve,

    y = Aᵀ [(G w) ⊙ (Bᵀ d)],

each a matrix product over three columns and all channels, [pixels, 3 · C] by
[3 · C, O]. Half of the multiplications remain; in float32 the result is within a few
1e-6 of its largest value. Along both axes the transforms would cost what is saved.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ROWS = 4
"""Output rows of a tile."""
LEAST_PRODUCTS = 2**24
"""Output pixels times C times O, below which the transforms cost what they save."""

INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
"""Bᵀ, for the points 0, 1, -1, 2, -2 and infinity."""
KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""G."""
OUTPUT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)
"""Aᵀ."""

Pairs = tuple[tuple[int, int], tuple[int, int]]


def convolves(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Pairs
) -> bool:
    """Whether this is a convolution that `convolve` does, and does faster."""
    return _pays(x, kernel, strides, padding, least_pixels=512)


def differentiates(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Pairs
) -> bool:
    """Whether `kernel_gradient` does this one, and does it faster."""
    return _pays(x, kernel, strides, padding, least_pixels=128)


def _pays(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Pairs,
    least_pixels: int,
) -> bool:
    if kernel.shape[:2] != (3, 3) or strides != (1, 1) or x.dtype != jnp.float32:
        return False
    if min(map(min, padding)) < 0:
        return False
    height, width = _output_size(x, padding)
    # An exported program has any number of images, at least one.
    images = x.shape[0] if isinstance(x.shape[0], int) else 1
    pixels = images * height * width
    products = pixels * kernel.shape[2] * kernel.shape[3]
    return height >= ROWS and pixels >= least_pixels and products >= LEAST_PRODUCTS


def convolve(x: jax.Array, kernel: jax.Array, padding: Pairs) -> jax.Array:
    """x [N, H, W, C] * kernel [3, 3, C, O] -> [N, H', W', O]."""
    height, width = _output_size(x, padding)
    tiles, (*_, channels, features) = -(-height // ROWS), kernel.shape
    parts = []
    for rows, part in zip(
        _input_rows(x, padding), _combine(KERNEL, kernel), strict=True
    ):
        # Fused with the product, the columns would be computed many times.
        columns = lax.optimization_barrier(jnp.concatenate(_columns(rows, width), -1))
        product = columns.reshape(-1, 3 * channels) @ part.reshape(-1, features)
        parts.append(product.reshape(x.shape[0], tiles, width, features))
    y = jnp.stack(_combine(OUTPUT, parts), 2)
    return y.reshape(x.shape[0], tiles * ROWS, width, features)[:, :height]


def kernel_gradient(x: jax.Array, grad: jax.Array, padding: Pairs) -> jax.Array:
    """Gradient of the kernel [3, 3, C, O] from that of the output, [N, H', W', O]."""
    count, height, width, features = grad.shape
    tiles = -(-height // ROWS)
    grad = jnp.pad(grad, ((0, 0), (0, tiles * ROWS - height), (0, 0), (0, 0)))
    grad = grad.reshape(count, tiles, ROWS, width, features)
    grads = _combine(OUTPUT.T, [grad[:, :, i] for i in range(ROWS)])
    parts = [
        jnp.stack(
            [
                column.reshape(-1, x.shape[-1]).T @ part.reshape(-1, features)
                for column in _columns(rows, width)
            ]
        )
        for rows, part in zip(
            _input_rows(x, padding), lax.optimization_barrier(grads), strict=True
        )
    ]
    return jnp.stack(_combine(KERNEL.T, parts))


def _output_size(x: jax.Array, padding: Pairs) -> tuple[int, int]:
    height, width = (
        size + sum(pair) - 2 for size, pair in zip(x.shape[1:3], padding, strict=True)
    )
    return height, width


def _input_rows(x: jax.Array, padding: Pairs) -> list[jax.Array]:
    """Bᵀ d: six arrays [N, tiles, W + padding, C]."""
    (count, height, _, channels), ((top, _), sides) = x.shape, padding
    tiles = -(-_output_size(x, padding)[0] // ROWS)
    bottom = (tiles + 1) * ROWS - height - top
    x = jnp.pad(x, ((0, 0), (top, bottom), sides, (0, 0)))
    x = x.reshape(count, tiles + 1, ROWS, -1, channels)
    rows = [x[:, i // ROWS : i // ROWS + tiles, i % ROWS] for i in range(ROWS + 2)]
    return lax.optimization_barrier(_combine(INPUT, rows))


def _columns(rows: jax.Array, width: int) -> list[jax.Array]:
    """The three columns that each of `width` output pixels sees."""
    return [rows[:, :, i : i + width] for i in range(3)]


def _combine(
    matrix: np.ndarray, parts: jax.Array | Sequence[jax.Array]
) -> list[jax.Array]:
    """matrix @ parts along their list, without the products by 0 and 1."""
    return [
        sum(
            part if factor == 1 else float(factor) * part
            for factor, part in zip(row, parts, strict=True)
            if factor
        )
        for row in matrix
    ]
