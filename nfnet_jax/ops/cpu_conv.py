"""Convolution and its gradients on CPUs, chosen by size, strides and groups.

XLA's own gradients of a convolution are many times slower inside `lax.scan`, in which
the blocks of a stage run, than outside. Here:

- a 1x1 convolution is a matrix product;
- a large enough 3x3 convolution of stride 1, with groups or without, needs half of the
  multiplications (`ops.winograd`);
- other groups are separate convolutions; narrow groups are merged up to
  `MERGED_CHANNELS` channels by a block diagonal kernel, which multiplies by zeros and
  is faster than many small products;
- a convolution with a large kernel, or with a kernel larger than its images, and its
  input gradient, are products with patches (`ops.windows`);
- so are the gradients of a strided convolution;
- all other input gradients are written as a convolution of the output gradient with the
  flipped kernel, all other kernel gradients as a convolution with the batch and channel
  axes exchanged: XLA finds its fast routine for these forms only.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nfnet_jax.ops import windows, winograd
from nfnet_jax.ops.precision import Images, Kernel, at_least_float32
from nfnet_jax.ops.windows import Pair, Pairs, Window

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
MANY_WEIGHTS = 2**16
"""Weights at one pixel of a kernel from which products are faster than the native
convolution, and the transposition of the kernel takes long."""
MERGED_CHANNELS = 64
_traced_once = functools.partial(jax.jit, static_argnums=(0, 1, 2))
"""Traces a function once for each strides, padding, groups and shapes: a network has
many equal convolutions, and tracing them is a part of every start."""


def native_conv(
    strides: Pair, padding: Pairs, groups: int, x: Images, kernel: Kernel
) -> Images:
    """Convolution of XLA."""
    dilation = None, None
    return lax.conv_general_dilated(
        x, kernel, strides, padding, *dilation, DIMENSIONS, groups
    )


@_traced_once
def forward(
    strides: Pair, padding: Pairs, groups: int, x: Images, kernel: Kernel
) -> Images:
    """Convolution of images with a kernel."""
    if winograd.is_faster(x, kernel, strides, padding, groups):
        return winograd.convolve(x, kernel, padding, groups)
    if groups > 1:
        outputs = [
            forward(strides, padding, 1, part, block_diagonal(own, merged))
            for merged, part, own in split_groups(groups, kernel.shape[2], x, kernel)
        ]
        return jnp.concatenate(outputs, -1)
    if _is_pointwise(kernel, padding):
        return _subsample(strides, x) @ kernel[0, 0]
    if _is_large(kernel, x.shape):
        height, width = kernel.shape[:2]
        window = Window((height, width), strides, padding)
        return windows.convolve_patches(x, kernel, window)
    return native_conv(strides, padding, 1, x, kernel)


@_traced_once
def gradients(
    strides: Pair, padding: Pairs, groups: int, x: Images, kernel: Kernel, grad: Images
) -> tuple[Images, Kernel]:
    """Gradients of images and kernel from the gradient of the output."""
    return (
        _input_gradient(strides, padding, groups, x.shape, kernel, grad),
        _kernel_gradient(strides, padding, groups, x, kernel, grad),
    )


def _input_gradient(strides, padding, groups, x_shape, kernel, grad):
    """Convolves the gradient with the flipped kernel, unless products are faster."""
    turned_padding = _turned_padding(strides, padding, x_shape, kernel, grad)
    if winograd.is_faster(grad, kernel, strides, turned_padding, groups):
        return winograd.input_gradient(grad, kernel, turned_padding, groups)
    if groups > 1:
        width, parts = kernel.shape[2], []
        for merged, own, part in split_groups(groups, width, kernel, grad):
            shape, whole = (*x_shape[:3], merged * width), block_diagonal(own, merged)
            parts.append(_input_gradient(strides, padding, 1, shape, whole, part))
        return jnp.concatenate(parts, -1)
    if _is_pointwise(kernel, padding):
        return _spread(strides, x_shape, grad @ kernel[0, 0].T)
    if strides != (1, 1) or _is_large(kernel, x_shape):
        window = Window(kernel.shape[:2], strides, padding)
        return windows.input_gradient(x_shape, kernel, grad, window)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return native_conv(strides, turned_padding, 1, grad, flipped)


def _kernel_gradient(strides, padding, groups, x, kernel, grad):
    """Convolves the images with the gradient, channels in the place of examples,

    [C, H, W, N] * [H', W', N, O] -> [C, KH, KW, O], unless products are faster.
    """
    least = winograd.LEAST_PIXELS_OF_KERNEL_GRADIENT
    if winograd.is_faster(x, kernel, strides, padding, groups, least_pixels=least):
        return winograd.kernel_gradient(x, grad, padding, groups)
    if groups > 1:
        width, parts = kernel.shape[2], []
        for merged, part, own, out in split_groups(groups, width, x, kernel, grad):
            whole = block_diagonal(own, merged)
            found = _kernel_gradient(strides, padding, 1, part, whole, out)
            parts.append(diagonal_blocks(found, merged))
        return jnp.concatenate(parts, -1)
    if _is_pointwise(kernel, padding):
        # The derived product would be the other way round, which is slower.
        pixels = _subsample(strides, x).reshape(-1, x.shape[-1])
        return (pixels.T @ grad.reshape(-1, grad.shape[-1]))[None, None]
    if strides != (1, 1):
        window = Window(kernel.shape[:2], strides, padding)
        return windows.kernel_gradient(x, grad, window)
    product = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        grad.transpose(1, 2, 0, 3),
        (1, 1),
        padding,
        dimension_numbers=DIMENSIONS,
        preferred_element_type=at_least_float32(x.dtype),
    )
    return product.transpose(1, 2, 0, 3).astype(kernel.dtype)


def _turned_padding(strides, padding, x_shape, kernel, grad) -> Pairs:
    """Padding of the convolution that takes the gradient back to the input."""
    axes = x_shape[1:3], kernel.shape[:2], grad.shape[1:3], strides, padding
    height, width = (
        (window - 1 - low, size - 1 - (out - 1) * stride + low)
        for size, window, out, stride, (low, _) in zip(*axes, strict=True)
    )
    return height, width


def _is_pointwise(kernel: jax.Array, padding: Pairs) -> bool:
    return kernel.shape[:2] == (1, 1) and not any(map(any, padding))


def _is_large(kernel: jax.Array, x_shape: tuple[int, ...]) -> bool:
    """True if products with patches are faster than the native convolution.

    With a window larger than the image, most of what that one multiplies is padding.
    """
    wider = any(a > b for a, b in zip(kernel.shape[:2], x_shape[1:3], strict=True))
    return wider or kernel[0, 0].size >= MANY_WEIGHTS


def _subsample(strides, x):
    return x[:, :: strides[0], :: strides[1]] if strides != (1, 1) else x


def _spread(strides, x_shape, grad):
    """Transpose of `_subsample`."""
    x = jax.ShapeDtypeStruct((*x_shape[:3], grad.shape[-1]), grad.dtype)
    return jax.linear_transpose(functools.partial(_subsample, strides), x)(grad)[0]


def split_groups(
    groups: int, width: int, *arrays: Float[Array, "... channels"]
) -> Iterator[tuple]:
    """Yields a number of groups, and the channels of each array that belong to them.

    `width` is the number of input channels of one group.
    """
    merged = max(1, MERGED_CHANNELS // width)
    for first in range(0, groups, merged):
        last = min(first + merged, groups)
        yield last - first, *(_channels(a, groups, first, last) for a in arrays)


def _channels(array: jax.Array, groups: int, first: int, last: int) -> jax.Array:
    width = array.shape[-1] // groups
    return array[..., first * width : last * width]


def block_diagonal(kernel: Kernel, groups: int) -> Kernel:
    """Kernel without groups that computes the same convolution."""
    if groups == 1:
        return kernel
    *size, inputs, features = kernel.shape
    blocks = kernel.reshape(*size, 1, inputs, groups, features // groups)
    diagonal = jnp.eye(groups, dtype=kernel.dtype)[:, None, :, None]
    blocks = blocks * jnp.expand_dims(diagonal, range(len(size)))
    return blocks.reshape(*size, groups * inputs, features)


def diagonal_blocks(kernel: Kernel, groups: int) -> Kernel:
    """Inverse of `block_diagonal`; weights outside of all blocks are dropped."""
    if groups == 1:
        return kernel
    *size, channels, features = kernel.shape
    blocks = kernel.reshape(
        *size, groups, channels // groups, groups, features // groups
    )
    diagonal = jnp.einsum("hwgigo->hwigo", blocks)
    return diagonal.reshape(*size, channels // groups, features)
