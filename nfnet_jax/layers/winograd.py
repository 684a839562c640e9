"""3x3 convolutions with stride 1 by minimal filtering, for CPUs.

Winograd's algorithm F(4, 3) (Lavin and Gray 2015, arXiv 1509.09308), along the height
only: four output rows y come from six input rows d by six products instead of twelve,

    y = Aᵀ [(G w) ⊙ (Bᵀ d)],

each a matrix product over three columns and all channels, [pixels, 3 · C] by
[3 · C, O]. Half of the multiplications remain; in float32 the result is within a few
1e-6 of its largest value. Along both axes the transforms would cost what is saved.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nfnet_jax.layers.padding import Pairs

ROWS = 4
"""Output rows of a tile."""
LEAST_PRODUCTS = 2**24
"""Output pixels times C / groups times O, below which the transforms cost what they
save."""
WIDE_GROUP = 64
"""Input channels of a group, below which it had better be merged with others."""

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


def convolves(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Pairs,
    groups: int,
) -> bool:
    """Whether this is a convolution that `convolve` does, and does faster."""
    return _pays(x, kernel, strides, padding, groups, least_pixels=512)


def differentiates(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Pairs,
    groups: int,
) -> bool:
    """Whether `kernel_gradient` does this one, and does it faster."""
    return _pays(x, kernel, strides, padding, groups, least_pixels=128)


def _pays(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Pairs,
    groups: int,
    least_pixels: int,
) -> bool:
    if kernel.shape[:2] != (3, 3) or strides != (1, 1) or x.dtype != jnp.float32:
        return False
    if min(map(min, padding)) < 0 or (groups > 1 and kernel.shape[2] < WIDE_GROUP):
        return False
    height, width = _output_size(x, padding)
    # An exported program has any number of images, at least one.
    images = x.shape[0] if isinstance(x.shape[0], int) else 1
    pixels = images * height * width
    products = pixels * kernel.shape[2] * kernel.shape[3]
    return height >= ROWS and pixels >= least_pixels and products >= LEAST_PRODUCTS


def convolve(
    x: jax.Array, kernel: jax.Array, padding: Pairs, groups: int = 1
) -> jax.Array:
    """x [N, H, W, C] * kernel [3, 3, C / groups, O] -> [N, H', W', O]."""

    def multiply(columns: jax.Array, part: jax.Array) -> jax.Array:
        return columns @ part.reshape(-1, part.shape[-1])

    return _filter(x, _combine(KERNEL, kernel), padding, groups, multiply)


def input_gradient(
    grad: jax.Array, kernel: jax.Array, padding: Pairs, groups: int = 1
) -> jax.Array:
    """`convolve` with the kernel of each group turned around, [3, 3, O, C].

    It is multiplied from the other side instead of being transposed, which takes longer
    than a product.
    """

    def multiply(columns: jax.Array, part: jax.Array) -> jax.Array:
        turned = jnp.concatenate(part[::-1], -1)
        return lax.dot_general(columns, turned, (((3,), (1,)), ((), ())))

    return _filter(grad, _combine(KERNEL, kernel[::-1]), padding, groups, multiply)


def _filter(
    x: jax.Array,
    parts: Sequence[jax.Array],
    padding: Pairs,
    groups: int,
    multiply: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Aᵀ [parts ⊙ (Bᵀ x)], where ⊙ is `multiply`, group by group."""
    height, width = _output_size(x, padding)
    tiles = -(-height // ROWS)
    products = [
        [
            # Fused with the product, the columns would be computed many times.
            multiply(lax.optimization_barrier(_columns(own_rows, width)), own_part)
            for own_rows, own_part in zip(
                jnp.split(rows, groups, -1), jnp.split(part, groups, -1), strict=True
            )
        ]
        for rows, part in zip(_input_rows(x, padding), parts, strict=True)
    ]
    outputs = [
        jnp.stack(_combine(OUTPUT, group), 2) for group in zip(*products, strict=True)
    ]
    y = jnp.concatenate(outputs, -1)
    return y.reshape(x.shape[0], tiles * ROWS, width, -1)[:, :height]


def kernel_gradient(
    x: jax.Array, grad: jax.Array, padding: Pairs, groups: int = 1
) -> jax.Array:
    """Gradient of the kernel [3, 3, C / groups, O] from that of the output."""
    count, height, width, features = grad.shape
    tiles = -(-height // ROWS)
    grad = jnp.pad(grad, ((0, 0), (0, tiles * ROWS - height), (0, 0), (0, 0)))
    grad = grad.reshape(count, tiles, ROWS, width, features)
    grads = _combine(OUTPUT.T, [grad[:, :, i] for i in range(ROWS)])
    parts = [
        jnp.concatenate(
            [
                _column_products(own_rows, own_part)
                for own_rows, own_part in zip(
                    jnp.split(rows, groups, -1),
                    jnp.split(part, groups, -1),
                    strict=True,
                )
            ],
            -1,
        )
        for rows, part in zip(
            _input_rows(x, padding), lax.optimization_barrier(grads), strict=True
        )
    ]
    return jnp.stack(_combine(KERNEL.T, parts))


def _column_products(rows: jax.Array, part: jax.Array) -> jax.Array:
    """[3, C, O] from rows [N, tiles, W + 2, C] and `part` [N, tiles, W, O]."""
    width, features = part.shape[2:]
    part = part.reshape(-1, features)
    return jnp.stack(
        [
            rows[:, :, i : i + width].reshape(-1, rows.shape[-1]).T @ part
            for i in range(3)
        ]
    )


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


def _columns(rows: jax.Array, width: int) -> jax.Array:
    """The three columns that each of `width` output pixels sees, side by side."""
    return jnp.concatenate([rows[:, :, i : i + width] for i in range(3)], -1)


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
