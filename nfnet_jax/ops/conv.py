"""Convolution in two dimensions, with the fast lowering of each platform.

`conv2d` computes `lax.conv_general_dilated`. GPU and TPU run the native convolution; on
a CPU the function and its gradients are those of `ops.cpu_conv`.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Sequence
from numbers import Integral

import jax
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
) -> Images:
    """2-D cross-correlation without bias.

    Args:
      x: images, of floating point.
      kernel: of the dtype of `x`.
      strides: steps along H and W.
      padding: "SAME", "VALID" or "symmetric" (see `padding_pixels`), or
        ((top, bottom), (left, right)) in pixels.
      groups: number of groups that input and output channels are split into.

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
    _check_channels(x.shape, kernel.shape, groups)
    steps = pair(strides, "strides")
    pads = padding_pixels(padding, x.shape[1:3], kernel.shape[:2], steps)
    height, width = kernel.shape[:2]
    if min(Window((height, width), steps, pads).places(x.shape[1:3])) < 1:
        raise ValueError(
            f"a window of {height}x{width} pixels fits nowhere into "
            f"images of {x.shape[1]}x{x.shape[2]} with padding {padding!r}"
        )
    if is_native_only():
        return native_conv(steps, pads, groups, x, kernel)
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


def _forward(x, kernel, *static):
    return _by_platform(cpu_conv.forward, native_conv, static, x, kernel)


def _by_platform(cpu, default, static, *arrays):
    cpu, default = (functools.partial(own, *static) for own in (cpu, default))
    return lax.platform_dependent(*arrays, cpu=cpu, default=default)


def _save_inputs(x, kernel, strides, padding, groups):
    # Not `_conv2d`, through which a forward derivative of the gradient cannot go.
    return _forward(x, kernel, strides, padding, groups), (x, kernel)


def _gradients(strides, padding, groups, inputs, grad):
    static = strides, padding, groups
    return _by_platform(cpu_conv.gradients, native_gradients, static, *inputs, grad)


_conv2d.defvjp(_save_inputs, _gradients)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def native_gradients(
    strides: Pair, padding: Pairs, groups: int, x: Images, kernel: Kernel, grad: Images
) -> tuple[Images, Kernel]:
    """Gradients of images and kernel as JAX derives them."""
    conv = functools.partial(native_conv, strides, padding, groups)
    return jax.vjp(conv, x, kernel)[1](grad)
