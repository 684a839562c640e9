"""Max pooling, with a gradient that is fast on CPUs."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from nfnet_jax.ops.conv import is_native_only
from nfnet_jax.ops.precision import Images, check_floating
from nfnet_jax.ops.windows import Window, add_views, padding_pixels, views


def max_pool(x: Images, padding: str = "SAME") -> Images:
    """3x3 max pooling, stride 2, padded with -inf: "SAME", or "symmetric" by 1.

    Odd sides are rounded up. The gradient goes to the first of equal maxima, row by
    row.
    """
    check_floating(x.dtype)
    pixels = padding_pixels(padding, x.shape[1:3], (3, 3), (2, 2))
    if is_native_only():
        # Padded beforehand: jax2onnx takes explicit padding of one for none.
        x = jnp.pad(x, ((0, 0), *pixels, (0, 0)), constant_values=-math.inf)
        return _native(Window((3, 3), (2, 2), ((0, 0), (0, 0))), x)
    return _max_pool(x, Window((3, 3), (2, 2), pixels))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x, window):
    return _native(window, x)


def _save(x, window):
    y = _native(window, x)
    return y, (x, y)


def _gradient(window, saved, grad):
    x, y = saved
    cpu = functools.partial(_gradient_by_views, window)
    default = functools.partial(_native_gradient, window)
    return (lax.platform_dependent(x, y, grad, cpu=cpu, default=default),)


_max_pool.defvjp(_save, _gradient)


def _native(window, x):
    return nn.max_pool(
        x, window_shape=window.size, strides=window.strides, padding=window.padding
    )


def _native_gradient(window, x, y, grad):
    return jax.vjp(functools.partial(_native, window), x)[1](grad)[0]


def _gradient_by_views(window, x, y, grad):
    """Gradient in a fourth of the time of the native one on a CPU."""
    parts, unclaimed = [], jnp.ones(y.shape, bool)
    for view in views(x, window, fill=-math.inf):
        first = unclaimed & (view == y)
        parts.append(jnp.where(first, grad, 0))
        unclaimed &= ~first
    return add_views(parts, window, x.shape[1:3])
