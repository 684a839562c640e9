"""One convolution, lowered the fast way on each platform.

`conv2d` computes what `lax.conv_general_dilated` computes. GPU and TPU run the native
convolution. On a CPU, where the native gradients are many times slower inside
`lax.scan` (in which the blocks of a stage live) than outside, four things differ:

- a 1x1 convolution is a matrix product;
- groups are convolutions of their own, narrow ones several together;
- the input gradient is a convolution with the flipped kernel, written out;
- so is the kernel gradient, channels in the place of examples: the compiler finds its
  fast routine for these forms, and not for those that it derives itself.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

from nfnet_jax.layers import winograd
from nfnet_jax.layers.groups import block_diagonal, diagonal_blocks, split_groups

Pairs = tuple[tuple[int, int], tuple[int, int]]
Lowering = Callable[..., jax.Array]

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


_native_only = contextvars.ContextVar("native_only", default=False)


@contextlib.contextmanager
def native_convolutions() -> Iterator[None]:
    """Within it `conv2d` is `lax.conv_general_dilated` and nothing else.

    For tools that read programs and know neither platforms nor custom gradients.
    Programs that `jax.jit` has traced before stay as they are.
    """
    token = _native_only.set(True)
    try:
        yield
    finally:
        _native_only.reset(token)


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str | Pairs = "SAME",
    groups: int = 1,
) -> jax.Array:
    """2-D cross-correlation without bias.

    Args:
      x: images [N, H, W, C].
      kernel: [KH, KW, C / groups, O], of the dtype of `x`.
      strides: steps along H and W.
      padding: "SAME" (as XLA and TensorFlow define it), "VALID", or
        ((top, bottom), (left, right)) in pixels.
      groups: number of groups that input and output channels are split into.

    Returns:
      [N, H', W', O], of the dtype of `x`.

    Raises:
      ValueError: channels or groups do not fit together.

    Differentiable in reverse mode, any number of times; not in forward mode.
    """
    _check_channels(x.shape, kernel.shape, groups)
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
        height, width = ((int(low), int(high)) for low, high in pads)
        padding = (height, width)
    if _native_only.get():
        return _native(strides, padding, groups, x, kernel)
    return _conv2d(x, kernel, tuple(strides), padding, groups)


def _check_channels(
    x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], groups: int
) -> None:
    channels, features = x_shape[-1], kernel_shape[-1]
    if channels % groups or features % groups or kernel_shape[2] * groups != channels:
        raise ValueError(
            f"{channels} input channels, kernel {tuple(kernel_shape)} and groups="
            f"{groups} do not fit: expected a kernel [KH, KW, input channels / groups, "
            "features] with both channel counts divisible by groups"
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv2d(x, kernel, strides, padding, groups):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_cpu_forward, strides, padding, groups),
        default=functools.partial(_native, strides, padding, groups),
    )


def _save_inputs(x, kernel, strides, padding, groups):
    return _conv2d(x, kernel, strides, padding, groups), (x, kernel)


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


def _native_gradients(strides, padding, groups, x, kernel, grad):
    native = functools.partial(_native, strides, padding, groups)
    return jax.vjp(native, x, kernel)[1](grad)


def _cpu_forward(strides, padding, groups, x, kernel):
    if groups > 1:
        outputs = [
            _cpu_forward(strides, padding, 1, part, block_diagonal(own, merged))
            for merged, part, own in split_groups(groups, x, kernel)
        ]
        return jnp.concatenate(outputs, -1)
    if _is_pointwise(kernel, padding):
        return _subsample(x, strides) @ kernel[0, 0]
    if winograd.convolves(x, kernel, strides, padding):
        return winograd.convolve(x, kernel, padding)
    return _native(strides, padding, 1, x, kernel)


def _cpu_gradients(strides, padding, groups, x, kernel, grad):
    if groups > 1:
        x_grads, kernel_grads = [], []
        for merged, part, own, part_grad in split_groups(groups, x, kernel, grad):
            dense = block_diagonal(own, merged)
            x_grad, dense_grad = _cpu_gradients(
                strides, padding, 1, part, dense, part_grad
            )
            x_grads.append(x_grad)
            kernel_grads.append(diagonal_blocks(dense_grad, merged))
        return jnp.concatenate(x_grads, -1), jnp.concatenate(kernel_grads, -1)
    if _is_pointwise(kernel, padding):
        return _pointwise_gradients(strides, x, kernel, grad)
    return (
        _input_gradient(x.shape, kernel, grad, strides, padding),
        _kernel_gradient(x, kernel, grad, strides, padding),
    )


def _is_pointwise(kernel: jax.Array, padding: Pairs) -> bool:
    return kernel.shape[:2] == (1, 1) and not any(map(any, padding))


def _subsample(x, strides):
    return x[:, :: strides[0], :: strides[1]] if strides != (1, 1) else x


def _pointwise_gradients(strides, x, kernel, grad):
    """Matrix products too; the derived one of the kernel would multiply the other way
    round, which is slower."""
    sampled, scatter = jax.vjp(functools.partial(_subsample, strides=strides), x)
    (x_grad,) = scatter(grad @ kernel[0, 0].T)
    pixels = sampled.reshape(-1, x.shape[-1])
    kernel_grad = pixels.T @ grad.reshape(-1, grad.shape[-1])
    return x_grad, kernel_grad[None, None]


def _input_gradient(x_shape, kernel, grad, strides, padding):
    """Convolution of the gradient, dilated by the stride, with the flipped kernel."""
    sizes = zip(x_shape[1:3], kernel.shape, grad.shape[1:3], strides, strict=False)
    grad_padding = tuple(
        (window - 1 - low, size - 1 - (out - 1) * stride + low)
        for (low, _), (size, window, out, stride) in zip(padding, sizes, strict=True)
    )
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    if strides == (1, 1):
        return _cpu_forward(strides, grad_padding, 1, grad, flipped)
    return lax.conv_general_dilated(
        grad,
        flipped,
        (1, 1),
        grad_padding,
        lhs_dilation=strides,
        dimension_numbers=DIMENSIONS,
    )


def _kernel_gradient(x, kernel, grad, strides, padding):
    """Convolution of the images with the gradient, channels in the place of examples:

    [C, H, W, N] * [H', W', N, O] -> [C, KH, KW, O]: the stride becomes a dilation.
    """
    if winograd.differentiates(x, kernel, strides, padding):
        return winograd.kernel_gradient(x, grad, padding)
    sizes = zip(x.shape[1:3], kernel.shape, grad.shape[1:3], strides, strict=False)
    kernel_padding = []
    for (low, _), (size, window, out, stride) in zip(padding, sizes, strict=True):
        reach = (out - 1) * stride + window
        kernel_padding.append((low, reach - size - low))
    product = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        grad.transpose(1, 2, 0, 3),
        (1, 1),
        kernel_padding,
        rhs_dilation=strides,
        dimension_numbers=DIMENSIONS,
        preferred_element_type=jnp.float32,
    )
    return product.transpose(1, 2, 0, 3).astype(kernel.dtype)
