"""One convolution, lowered the fast way on each platform.

`conv2d` computes what `lax.conv_general_dilated` computes. GPU and TPU run the native
convolution. On a CPU, where the native gradients are many times slower inside
`lax.scan` (in which the blocks of a stage live) than outside, seven things differ:

- a 1x1 convolution is a matrix product;
- a 3x3 convolution of stride 1, with groups or without, needs half of the
  multiplications (`winograd`) where it is large enough;
- other groups are convolutions of their own, narrow ones several together;
- one with a large kernel, or one larger than its images, is a product with what its
  window sees (`patches`), and its input gradient too;
- so are the gradients of a strided one;
- another input gradient is a convolution with the flipped kernel, written out;
- so is another kernel gradient, channels in the place of examples: the compiler finds
  its fast routine for these forms, and not for those that it derives itself.
"""

import functools
from collections.abc import Sequence
from numbers import Integral

import jax
import jax.numpy as jnp
from jax import lax

from nfnet_jax.ops import patches, winograd
from nfnet_jax.ops.groups import block_diagonal, diagonal_blocks, split_groups
from nfnet_jax.ops.lowering import is_native_only
from nfnet_jax.ops.padding import Padding, Pairs, padding_pixels, pair
from nfnet_jax.ops.precision import at_least_float32, check_floating

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
MANY_WEIGHTS = 2**16
"""Of a pixel of the kernel, from which the native convolution is slower than products,
and its transposition takes long."""
_traced_once = functools.partial(jax.jit, static_argnums=(0, 1, 2))
"""For each strides, padding, groups and shapes: a network has many convolutions alike,
and tracing them is a part of every start."""


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = (1, 1),
    padding: Padding = "SAME",
    groups: int = 1,
) -> jax.Array:
    """2-D cross-correlation without bias.

    Args:
      x: images [N, H, W, C], of floating point.
      kernel: [KH, KW, C / groups, O], of the dtype of `x`.
      strides: steps along H and W.
      padding: "SAME", "VALID" or "symmetric" (see `padding_pixels`), or
        ((top, bottom), (left, right)) in pixels.
      groups: number of groups that input and output channels are split into.

    Returns:
      [N, H', W', O], of the dtype of `x`.

    Raises:
      TypeError: images or kernel of whole numbers, or of two dtypes.
      ValueError: channels or groups do not fit together, or see `padding_pixels`.

    Differentiable in reverse mode, any number of times, and in forward mode after that
    (a gradient's directional derivative), not in forward mode alone.
    """
    check_floating(x.dtype)
    if x.dtype != kernel.dtype:
        raise TypeError(f"images of {x.dtype}, kernel of {kernel.dtype}: expected one")
    _check_channels(x.shape, kernel.shape, groups)
    steps = pair(strides, "strides")
    pads = padding_pixels(padding, x.shape[1:3], kernel.shape[:2], steps)
    height, width = kernel.shape[:2]
    window = patches.Window((height, width), steps, pads)
    if min(window.places(x.shape[1:3])) < 1:
        raise ValueError(
            f"a window of {height}x{width} pixels fits nowhere into "
            f"images of {x.shape[1]}x{x.shape[2]} with padding {padding!r}"
        )
    if is_native_only():
        return _native(steps, pads, groups, x, kernel)
    return _conv2d(x, kernel, steps, pads, groups)


def _check_channels(
    x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], groups: int
) -> None:
    if len(x_shape) != 4 or len(kernel_shape) != 4:
        raise ValueError(
            f"images {tuple(x_shape)}, kernel {tuple(kernel_shape)}: expected "
            "[N, H, W, C] and [KH, KW, C / groups, O]"
        )
    channels, features = x_shape[-1], kernel_shape[-1]
    if (
        not isinstance(groups, Integral)
        or groups < 1
        or channels % groups
        or features % groups
        or kernel_shape[2] * groups != channels
    ):
        raise ValueError(
            f"{channels} input channels, kernel {tuple(kernel_shape)} and groups="
            f"{groups!r} do not fit: expected a kernel [KH, KW, input channels / "
            "groups, features] with both channel counts divisible by groups"
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv2d(x, kernel, strides, padding, groups):
    return _forward(x, kernel, strides, padding, groups)


def _forward(x, kernel, strides, padding, groups):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_cpu_forward, strides, padding, groups),
        default=functools.partial(_native, strides, padding, groups),
    )


def _save_inputs(x, kernel, strides, padding, groups):
    # Not `_conv2d`, through which a forward derivative of the gradient cannot go.
    return _forward(x, kernel, strides, padding, groups), (x, kernel)


def _gradients(strides, padding, groups, inputs, grad):
    x, kernel = inputs
    return lax.platform_dependent(
        x,
        kernel,
        grad,
        cpu=functools.partial(_cpu_gradients, strides, padding, groups),
        default=functools.partial(_native_gradients, strides, padding, groups),
    )


_conv2d.defvjp(_save_inputs, _gradients)


def _native(strides, padding, groups, x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
    )


@_traced_once
def _native_gradients(strides, padding, groups, x, kernel, grad):
    native = functools.partial(_native, strides, padding, groups)
    return jax.vjp(native, x, kernel)[1](grad)


@_traced_once
def _cpu_forward(strides, padding, groups, x, kernel):
    if winograd.convolves(x, kernel, strides, padding, groups):
        return winograd.convolve(x, kernel, padding, groups)
    if groups > 1:
        outputs = [
            _cpu_forward(strides, padding, 1, part, block_diagonal(own, merged))
            for merged, part, own in split_groups(groups, kernel.shape[2], x, kernel)
        ]
        return jnp.concatenate(outputs, -1)
    if _is_pointwise(kernel, padding):
        return _subsample(strides, x) @ kernel[0, 0]
    if _is_large(kernel, x.shape):
        window = patches.Window(kernel.shape[:2], strides, padding)
        return patches.convolve(x, kernel, window)
    return _native(strides, padding, 1, x, kernel)


@_traced_once
def _cpu_gradients(strides, padding, groups, x, kernel, grad):
    return (
        _input_gradient(strides, padding, groups, x.shape, kernel, grad),
        _kernel_gradient(strides, padding, groups, x, kernel, grad),
    )


def _input_gradient(strides, padding, groups, x_shape, kernel, grad):
    """Unless products are faster: convolution of the gradient, flipped kernel."""
    turned_padding = _turned_padding(strides, padding, x_shape, kernel, grad)
    if winograd.convolves(grad, kernel, strides, turned_padding, groups):
        return winograd.input_gradient(grad, kernel, turned_padding, groups)
    if groups > 1:
        width = kernel.shape[2]
        parts = [
            _input_gradient(
                strides,
                padding,
                1,
                (*x_shape[:3], merged * width),
                block_diagonal(own, merged),
                part,
            )
            for merged, own, part in split_groups(groups, width, kernel, grad)
        ]
        return jnp.concatenate(parts, -1)
    if _is_pointwise(kernel, padding):
        return _spread(strides, x_shape, grad @ kernel[0, 0].T)
    if strides != (1, 1) or _is_large(kernel, x_shape):
        window = patches.Window(kernel.shape[:2], strides, padding)
        return patches.input_gradient(x_shape, kernel, grad, window)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return _native(strides, turned_padding, 1, grad, flipped)


def _kernel_gradient(strides, padding, groups, x, kernel, grad):
    """Unless products are faster: the images convolved with the gradient, channels in
    the place of examples,

    [C, H, W, N] * [H', W', N, O] -> [C, KH, KW, O].
    """
    if winograd.differentiates(x, kernel, strides, padding, groups):
        return winograd.kernel_gradient(x, grad, padding, groups)
    if groups > 1:
        parts = [
            diagonal_blocks(
                _kernel_gradient(
                    strides, padding, 1, part, block_diagonal(own, merged), part_grad
                ),
                merged,
            )
            for merged, part, own, part_grad in split_groups(
                groups, kernel.shape[2], x, kernel, grad
            )
        ]
        return jnp.concatenate(parts, -1)
    if _is_pointwise(kernel, padding):
        # The derived product would be the other way round, which is slower.
        pixels = _subsample(strides, x).reshape(-1, x.shape[-1])
        return (pixels.T @ grad.reshape(-1, grad.shape[-1]))[None, None]
    if strides != (1, 1):
        window = patches.Window(kernel.shape[:2], strides, padding)
        return patches.kernel_gradient(x, grad, window)
    product = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        grad.transpose(1, 2, 0, 3),
        (1, 1),
        padding,
        dimension_numbers=DIMENSIONS,
        preferred_element_type=at_least_float32(x.dtype),
    )
    return product.transpose(1, 2, 0, 3).astype(kernel.dtype)


def _turned_padding(
    strides: tuple[int, int],
    padding: Pairs,
    x_shape: tuple[int, ...],
    kernel: jax.Array,
    grad: jax.Array,
) -> Pairs:
    """Of the convolution that takes the gradient back to the input."""
    height, width = (
        (window - 1 - low, size - 1 - (out - 1) * stride + low)
        for size, window, out, stride, (low, _) in zip(
            x_shape[1:3],
            kernel.shape[:2],
            grad.shape[1:3],
            strides,
            padding,
            strict=True,
        )
    )
    return height, width


def _is_pointwise(kernel: jax.Array, padding: Pairs) -> bool:
    return kernel.shape[:2] == (1, 1) and not any(map(any, padding))


def _is_large(kernel: jax.Array, x_shape: tuple[int, ...]) -> bool:
    """Whether products with patches are faster than the native convolution.

    With a window larger than the image, most of what that one multiplies is padding.
    """
    wider = any(a > b for a, b in zip(kernel.shape[:2], x_shape[1:3], strict=True))
    return wider or kernel[0, 0].size >= MANY_WEIGHTS


def _subsample(strides, x):
    return x[:, :: strides[0], :: strides[1]] if strides != (1, 1) else x


def _spread(strides, x_shape, grad):
    """The transpose of `_subsample`."""
    x = jax.ShapeDtypeStruct((*x_shape[:3], grad.shape[-1]), grad.dtype)
    return jax.linear_transpose(functools.partial(_subsample, strides), x)(grad)[0]
