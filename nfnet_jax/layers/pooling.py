"""Average and max pooling."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nfnet_jax.ops.lowering import is_native_only
from nfnet_jax.ops.padding import padding_pixels
from nfnet_jax.ops.patches import Window, add_views, views
from nfnet_jax.ops.precision import at_least_float32, check_floating


class AveragePool(nn.Module):
    """2x2 average pooling, stride 2, `SAME`; edge windows divide by their real pixels.

    [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C], of the same dtype. A module, so
    that the analysis sees what it does to the signal.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = at_least_float32(x.dtype)
        pixels = jnp.ones((1, *x.shape[1:3], 1), dtype)
        return (_sums(x.astype(dtype)) / _sums(pixels)).astype(x.dtype)


def _sums(x: jax.Array) -> jax.Array:
    """Sums of 2x2 pixels, stride 2, `SAME`."""
    window, zero = (1, 2, 2, 1), np.zeros((), x.dtype)
    return lax.reduce_window(x, zero, lax.add, window, window, "SAME")


def max_pool(x: jax.Array, padding: str = "SAME") -> jax.Array:
    """3x3 max pooling, stride 2, padded with -inf: `SAME`, or 1 on every side.

    [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C]. The gradient goes to the first of
    equal maxima, row by row.
    """
    check_floating(x.dtype)
    pixels = padding_pixels(padding, x.shape[1:3], (3, 3), (2, 2))
    if is_native_only():
        # Padded beforehand: jax2onnx takes explicit padding of one for none.
        x = jnp.pad(x, ((0, 0), *pixels, (0, 0)), constant_values=-math.inf)
        pixels = (0, 0), (0, 0)
        return _native(Window((3, 3), (2, 2), pixels), x)
    return _max_pool(x, Window((3, 3), (2, 2), pixels))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x, window):
    return _native(window, x)


def _save(x, window):
    y = _native(window, x)
    return y, (x, y)


def _gradient(window, saved, grad):
    x, y = saved
    x_grad = lax.platform_dependent(
        x,
        y,
        grad,
        cpu=functools.partial(_gradient_by_views, window),
        default=functools.partial(_native_gradient, window),
    )
    return (x_grad,)


_max_pool.defvjp(_save, _gradient)


def _native(window, x):
    return nn.max_pool(
        x, window_shape=window.size, strides=window.strides, padding=window.padding
    )


def _native_gradient(window, x, y, grad):
    return jax.vjp(functools.partial(_native, window), x)[1](grad)[0]


def _gradient_by_views(window, x, y, grad):
    """A fourth of the time of the native one on a CPU."""
    parts, unclaimed = [], jnp.ones(y.shape, bool)
    for view in views(x, window, fill=-math.inf):
        first = unclaimed & (view == y)
        parts.append(jnp.where(first, grad, 0))
        unclaimed &= ~first
    return add_views(parts, window, x.shape[1:3])
