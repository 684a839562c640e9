"""3x3 convolutions with stride 1 by minimal filtering, for CPUs.

Winograd's algorithm F(4, 3) (Lavin, Gray 2015, "Fast algorithms for convolutional
neural networks", arXiv 1509.09308), along the height only: four output rows y come from
six input rows d by six products instead of twelve,

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

from nfnet_jax.ops.precision import Images, Kernel
from nfnet_jax.ops.windows import Pair, Pairs

ROWS = 4
"""Output rows of a tile."""
LEAST_HEIGHT = 3
"""Least height of the output, so that most of a tile is used."""
LEAST_PIXELS, LEAST_PIXELS_OF_KERNEL_GRADIENT = 512, 128
"""Least number of output pixels."""
LEAST_PRODUCTS = 2**24
"""Least output pixels · C / groups · O: below, the transforms cost what they save."""
WIDE_GROUP = 64
"""Least input channels of a group; narrower groups are better merged."""

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


def is_faster(
    x: Images,
    kernel: Kernel,
    strides: Pair,
    padding: Pairs,
    groups: int,
    least_pixels: int = LEAST_PIXELS,
) -> bool:
    """True if this module computes the convolution, and computes it faster.

    `least_pixels` is the least number of output pixels: `LEAST_PIXELS`, or
    `LEAST_PIXELS_OF_KERNEL_GRADIENT` for the gradient of the kernel.
    """
    if kernel.shape[:2] != (3, 3) or strides != (1, 1) or x.dtype != jnp.float32:
        return False
    if min(map(min, padding)) < 0 or (groups > 1 and kernel.shape[2] < WIDE_GROUP):
        return False
    height, width = _output_size(x.shape[1:3], padding)
    # An exported program has any number of images, at least one.
    images = x.shape[0] if isinstance(x.shape[0], int) else 1
    pixels = images * height * width
    products = pixels * kernel.shape[2] * kernel.shape[3]
    enough = pixels >= least_pixels and products >= LEAST_PRODUCTS
    return height >= LEAST_HEIGHT and enough


def convolve(x: Images, kernel: Kernel, padding: Pairs, groups: int = 1) -> Images:
    """Convolution of images with a kernel."""
    parts = [
        _by_group(part.reshape(-1, part.shape[-1]), groups)
        for part in _combine(KERNEL, kernel)
    ]
    return _filter(_by_group(x, groups), parts, padding, contracted=-2)


def input_gradient(
    grad: Images, kernel: Kernel, padding: Pairs, groups: int = 1
) -> Images:
    """Convolution of the gradient with the flipped and transposed kernel of each group.

    The kernel is multiplied from the other side instead of being transposed, which
    takes longer than a product.
    """
    parts = [
        jnp.concatenate([_by_group(column, groups) for column in part[::-1]], -1)
        for part in _combine(KERNEL, kernel[::-1])
    ]
    return _filter(_by_group(grad, groups), parts, padding, contracted=-1)


def _filter(
    x: jax.Array, parts: Sequence[jax.Array], padding: Pairs, contracted: int
) -> jax.Array:
    """Aᵀ [parts ⊙ (Bᵀ x)], a product for each part, of all groups at once.

    `x` and the parts are by group, the images [N, H, W, C / groups], a part a matrix
    with 3 · C / groups along axis `contracted`. The result is [N, H2, W2, O].
    """
    groups = x.shape[0] if x.ndim == 5 else 1
    height, width = _output_size(x.shape[-3:-1], padding)
    tiles = -(-height // ROWS)
    products = [
        # Fused with the product, the columns would be computed many times.
        _multiply(
            lax.optimization_barrier(jnp.concatenate(_columns(rows, width), -1)),
            part,
            (-1, contracted),
        )
        for rows, part in zip(_input_rows(x, padding), parts, strict=True)
    ]
    y = jnp.stack(_combine(OUTPUT, products), -3)
    y = y.reshape(groups, ROWS, x.shape[-4], tiles, width, -1)
    y = y.transpose(2, 3, 1, 4, 0, 5)
    return y.reshape(x.shape[-4], tiles * ROWS, width, -1)[:, :height]


def kernel_gradient(x: Images, grad: Images, padding: Pairs, groups: int = 1) -> Kernel:
    """Gradient of the kernel from that of the output."""
    height, _, features = grad.shape[1:]
    lacking = -height % ROWS
    grad = jnp.pad(grad, ((0, 0), (0, lacking), (0, 0), (0, 0)))
    grad = _by_group(_by_tile(grad), groups)
    grads = _combine(OUTPUT.T, [grad[..., i, :, :] for i in range(ROWS)])
    inputs, parts = _input_rows(_by_group(x, groups), padding), []
    for rows, part in zip(inputs, lax.optimization_barrier(grads), strict=True):
        columns = _columns(rows, part.shape[-2])
        products = [_multiply(c, _pixels(part), (-2, -2)) for c in columns]
        parts.append(jnp.stack(products))
    kernel_grad = jnp.stack(_combine(KERNEL.T, parts))
    if groups > 1:
        kernel_grad = kernel_grad.swapaxes(2, 3)
    return kernel_grad.reshape(3, 3, -1, features)


def _multiply(a: jax.Array, b: jax.Array, contracted: tuple[int, int]) -> jax.Array:
    """Products of matrices, group by group, summed over the axes `contracted`."""
    one, other = (axis % a.ndim for axis in contracted)
    batch = tuple(range(a.ndim - 2))
    return lax.dot_general(a, b, (((one,), (other,)), (batch, batch)))


def _by_group(x: jax.Array, groups: int) -> jax.Array:
    """[..., C] -> [groups, ..., C / groups], the order that products need.

    One group gets no axis: a batch of one costs 3 % of an NF-ResNet-50.
    """
    if groups == 1:
        return x
    return jnp.moveaxis(x.reshape(*x.shape[:-1], groups, -1), -2, 0)


def _by_tile(x: jax.Array) -> jax.Array:
    """[..., H, W, C] -> [..., H / ROWS, ROWS, W, C]"""
    return x.reshape(*x.shape[:-3], -1, ROWS, *x.shape[-2:])


def _output_size(size: tuple[int, ...], padding: Pairs) -> tuple[int, int]:
    height, width = (
        pixels + sum(pair) - 2 for pixels, pair in zip(size, padding, strict=True)
    )
    return height, width


def _input_rows(x: jax.Array, padding: Pairs) -> list[jax.Array]:
    """Bᵀ d: six arrays [..., N, tiles, W + padding, C]."""
    height, ((top, _), sides) = x.shape[-3], padding
    tiles = -(-_output_size(x.shape[-3:-1], padding)[0] // ROWS)
    bottom = (tiles + 1) * ROWS - height - top
    x = jnp.pad(x, (*[(0, 0)] * (x.ndim - 3), (top, bottom), sides, (0, 0)))
    x = _by_tile(x)
    rows = [
        x[..., i // ROWS : i // ROWS + tiles, i % ROWS, :, :] for i in range(ROWS + 2)
    ]
    return lax.optimization_barrier(_combine(INPUT, rows))


def _columns(rows: jax.Array, width: int) -> list[jax.Array]:
    """Three columns of input for each of `width` output pixels."""
    return [_pixels(rows[..., i : i + width, :]) for i in range(3)]


def _pixels(x: jax.Array) -> jax.Array:
    """[..., N, tiles, W, C] -> [..., pixels, C]"""
    return x.reshape(*x.shape[:-4], -1, x.shape[-1])


def _combine(
    matrix: np.ndarray, parts: jax.Array | Sequence[jax.Array]
) -> list[jax.Array]:
    """Computes matrix @ parts along the list, without the products by 0 and 1."""
    return [
        sum(
            part if factor == 1 else float(factor) * part
            for factor, part in zip(row, parts, strict=True)
            if factor
        )
        for row in matrix
    ]
