"""Convolution in two dimensions, with the fast lowering of each platform.

`conv2d` computes `lax.conv_general_dilated`. GPU and TPU run the native convolution; on
a CPU the function and its gradients are those of `ops.cpu_conv`.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Sequence
from numbers import Integral

import jax
import jax.numpy as jnp
from jax import lax

from nfnet_jax.ops import cpu_conv
from nfnet_jax.ops.cpu_conv import native_conv
from nfnet_jax.ops.precision import Images, Kernel, check_floating
from nfnet_jax.ops.windows import Padding, Pair, Pairs, Window, padding_pixels, pair

_native_only = contextvars.ContextVar("native_only", default=False)


@contextlib.contextmanager
def native_operations() -> Iterator[None]:
    """Makes `conv2d` and `max_pool` JAX's own operations inside the context.

    For tools that read programs and support neither `lax.platform_dependent` nor custom
    gradients, and for programs that are traced for their shapes or parameters alone,
    which is faster so. Programs that `jax.jit` has traced before stay as they are.
    """
    token = _native_only.set(True)
    try:
        yield
    finally:
        _native_only.reset(token)


def is_native_only() -> bool:
    """True if `native_operations` surrounds the caller."""
    return _native_only.get()


def conv2d(
    x: Images,
    kernel: Kernel,
    *,
    strides: int | Sequence[int] = (1, 1),
    padding: Padding = "SAME",
    groups: int = 1,
    split: int = 1,
) -> Images:
    """2-D cross-correlation without bias.

    Args:
      x: images, of floating point.
      kernel: of the dtype of `x`.
      strides: steps along H and W.
      padding: "SAME", "VALID" or "symmetric" (see `padding_pixels`), or
        ((top, bottom), (left, right)) in pixels.
      groups: number of groups that input and output channels are split into.
      split: number of groups that the result is split into, if more than one: [N, H, W,
        split, O / split], the form in which a TPU's grouped convolution reads it. From
        any other the signal is moved in memory, in a pass of its own.

    Returns:
      Images of the dtype of `x`.

    Raises:
      TypeError: images or kernel of whole numbers, or of two dtypes.
      ValueError: channels or groups do not fit together, or see `padding_pixels`.

    Differentiable in reverse mode, any number of times, and in forward mode after that
    (a gradient's directional derivative), not in forward mode alone.
    """
    check_floating(x.dtype)
    if x.dtype != kernel.dtype:
        raise TypeError(f"images of {x.dtype}, kernel of {kernel.dtype}: expected one")
    _check_channels(x.shape, kernel.shape, groups, split)
    steps = pair(strides, "strides")
    pads = padding_pixels(padding, x.shape[1:3], kernel.shape[:2], steps)
    height, width = kernel.shape[:2]
    if min(Window((height, width), steps, pads).places(x.shape[1:3])) < 1:
        raise ValueError(
            f"a window of {height}x{width} pixels fits nowhere into "
            f"images of {x.shape[1]}x{x.shape[2]} with padding {padding!r}"
        )
    if is_native_only():
        return _divided(native_conv(steps, pads, groups, _merged(x), kernel), split)
    return _conv2d(x, kernel, steps, pads, groups, split)


def _check_channels(
    x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], groups: int, split: int
) -> None:
    if len(x_shape) not in (4, 5) or len(kernel_shape) != 4:
        raise ValueError(
            f"images {tuple(x_shape)}, kernel {tuple(kernel_shape)}: expected "
            "[N, H, W, C] and [KH, KW, C / groups, O]"
        )
    channels, features = math.prod(x_shape[3:]), kernel_shape[-1]
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
    if features % split:
        raise ValueError(f"split {split}: expected a divisor of {features} features")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _conv2d(x, kernel, strides, padding, groups, split):
    return _forward(x, kernel, strides, padding, groups, split)


def _forward(x, kernel, *static):
    return _by_platform(_cpu, _native, static, x, kernel)


def _by_platform(cpu, default, static, *arrays):
    cpu, default = (functools.partial(own, *static) for own in (cpu, default))
    return lax.platform_dependent(*arrays, cpu=cpu, default=default)


def _save_inputs(x, kernel, *static):
    # Not `_conv2d`, through which a forward derivative of the gradient cannot go.
    return _forward(x, kernel, *static), (x, kernel)


def _gradients(*static_inputs_grad):
    *static, inputs, grad = static_inputs_grad
    return _by_platform(_cpu_gradients, native_gradients, static, *inputs, grad)


_conv2d.defvjp(_save_inputs, _gradients)


def _cpu(strides, padding, groups, split, x, kernel):
    y = cpu_conv.forward(strides, padding, groups, _merged(x), kernel)
    return _divided(y, split)


def _cpu_gradients(strides, padding, groups, split, x, kernel, grad):
    arrays = _merged(x), kernel, _merged(grad)
    x_grad, kernel_grad = cpu_conv.gradients(strides, padding, groups, *arrays)
    return x_grad.reshape(x.shape), kernel_grad


def _native(strides, padding, groups, split, x, kernel):
    pointwise = kernel.shape[:2] == strides == (1, 1) and not any(map(any, padding))
    if pointwise and split > 1:
        channels = _divided(kernel[0, 0], split)
        return jnp.einsum("nhwi,iso->nhwso", _merged(x), channels)
    if pointwise and x.ndim == 5 and groups == 1:
        # The groups are a third axis of pixels, and the window all of it.
        window = kernel.reshape(1, 1, *x.shape[3:], -1)
        dimensions = ("NHWGC", "HWGIO", "NHWGC")
        y = lax.conv_general_dilated(
            x, window, (1, 1, 1), "VALID", dimension_numbers=dimensions
        )
        return y[:, :, :, 0]
    return _divided(native_conv(strides, padding, groups, _merged(x), kernel), split)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def native_gradients(
    strides: Pair,
    padding: Pairs,
    groups: int,
    split: int,
    x: Images,
    kernel: Kernel,
    grad: Images,
) -> tuple[Images, Kernel]:
    """Gradients of images and kernel as JAX derives them."""
    conv = functools.partial(_native, strides, padding, groups, split)
    return jax.vjp(conv, x, kernel)[1](grad)


def _merged(x: Images) -> Images:
    """Undoes a split of channels: [N, H, W, C]."""
    return x.reshape(*x.shape[:3], -1)


def _divided(x: jax.Array, split: int) -> jax.Array:
    """Splits the last axis into `split` parts, if more than one."""
    return x.reshape(*x.shape[:-1], split, -1) if split > 1 else x
