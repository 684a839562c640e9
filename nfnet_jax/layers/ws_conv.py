"""Convolutions with scaled weight standardization [WS; SP, section 4.2]."""

import functools
import math
from collections.abc import Sequence
from numbers import Integral

import flax.linen as nn
import jax
import jax.numpy as jnp

from nfnet_jax.layers.initializers import fan_in_normal
from nfnet_jax.layers.pooling import AveragePool
from nfnet_jax.ops.conv import conv2d
from nfnet_jax.ops.padding import Padding, pair
from nfnet_jax.ops.precision import add_bias, at_least_float32, check_floating

EPS = 1e-4
FAN_IN = (0, 1, 2)
"""Axes of a kernel over which a filter extends."""
_by_filter = functools.partial(jnp.expand_dims, axis=FAN_IN)
"""[O] -> [1, 1, 1, O]."""


def standardize(
    kernel: jax.Array, gain: jax.Array, *, eps: float = EPS, var_eps: float = 0.0
) -> jax.Array:
    """Ŵ = gain · (W − mean) / sqrt(max(N · (var + var_eps), eps)), filter by filter.

    Args:
      kernel: [KH, KW, C / groups, O]; a filter is the N = KH · KW · C / groups weights
        of an output channel, `var` is their biased variance.
      gain: [O].
      eps: floor of N · var, inside the root, so a constant filter has finite gradients.
      var_eps: 0 in the reference; timm adds 1e-5 instead of taking the floor.

    Returns:
      [KH, KW, C / groups, O], at least float32.

    Raises:
      ValueError: N = 1, where every standardized filter is zero.
    """
    fan_in = math.prod(kernel.shape[:-1])
    if fan_in == 1:
        raise ValueError(
            f"kernel {kernel.shape} has fan-in 1: standardized, it is exactly 0; "
            "expected at least two weights per output channel"
        )
    dtype = at_least_float32(kernel.dtype)
    return _standardize(kernel.astype(dtype), gain.astype(dtype), eps, var_eps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _standardize(kernel, gain, eps, var_eps):
    """gain · r · (W − mean), where r depends on W too unless it is at its floor."""
    return _standardize_and_save(kernel, gain, eps, var_eps)[0]


def _standardize_and_save(kernel, gain, eps, var_eps):
    # Not through `_standardized`, out of which they would come as copies.
    standardized, *own = _standardized(kernel, gain, eps, var_eps)
    return standardized, (kernel, gain, *own)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _standardized(kernel, gain, eps, var_eps):
    # As a matrix, or XLA writes W − mean to memory to sum its squares.
    filters = kernel.reshape(-1, kernel.shape[-1])
    mean = filters.mean(0)
    power = len(filters) * (filters.var(0) + var_eps)
    r = jax.lax.rsqrt(jnp.maximum(power, eps))
    standardized = (kernel - _by_filter(mean)) * _by_filter(gain * r)
    return standardized, mean, r, power > eps


@functools.partial(jax.jit, static_argnums=(0, 1))
def _standardize_gradients(eps, var_eps, saved, grad):
    """With n = r · (W − mean): ∂gain = Σ ∂Ŵ · n, and off the floor

    ∂W = gain · r · (∂Ŵ − mean(∂Ŵ) − n · ∂gain).

    Written out, because on a CPU the derived gradient is ten times slower.
    """
    kernel, gain, mean, r, above = saved
    total = grad.sum(FAN_IN)
    gain_grad = r * ((grad * kernel).sum(FAN_IN) - mean * total)
    curvature = jnp.where(above, r * gain_grad, 0.0)
    centred = grad - _by_filter(total / math.prod(kernel.shape[:-1]))
    along = (kernel - _by_filter(mean)) * _by_filter(curvature)
    return _by_filter(gain * r) * (centred - along), gain_grad


_standardize.defvjp(_standardize_and_save, _standardize_gradients)


class WSConv(nn.Module):
    """Convolution with a standardized kernel, a learned gain and a bias.

    Input [N, H, W, C], output [N, H', W', features] of the same dtype. Parameters:
    `kernel` [KH, KW, C / groups, features], `gain` (ones) and `bias` (zeros)
    [features], all float32. `standardized=False` leaves the kernel as it is (for
    ablations and for the baselines); it then has no gain. `use_bias=False`: no bias.
    `padding="symmetric"`: (kernel_size - 1) // 2 pixels on every side. `gamma`: a
    constant factor of the gain. `var_eps`: see `standardize`. `use_gain=False`: none is
    learned. `pool`: 2x2 pixels are averaged before, and multiplied by `pool_gain`. A
    single number is taken for both axes.
    """

    features: int
    kernel_size: int | Sequence[int] = (3, 3)
    strides: int | Sequence[int] = (1, 1)
    padding: Padding = "SAME"
    groups: int = 1
    standardized: bool = True
    gamma: float = 1.0
    var_eps: float = 0.0
    use_gain: bool = True
    use_bias: bool = True
    pool: bool = False
    pool_gain: float = 1.0
    kernel_init: nn.initializers.Initializer = fan_in_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.pool:
            x = self.pool_gain * AveragePool(name="averaged")(x)
        check_floating(x.dtype)
        size = pair(self.kernel_size, "kernel_size")
        # `conv2d` names what is no number of groups.
        groups = self.groups if isinstance(self.groups, Integral) else 1
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (*size, x.shape[-1] // max(1, groups), self.features),
            jnp.float32,
        )
        if self.standardized:
            gain = self._gain()
            kernel = standardize(kernel, self.gamma * gain, var_eps=self.var_eps)
        y = conv2d(
            x,
            kernel.astype(x.dtype),
            strides=self.strides,
            padding=self.padding,
            groups=self.groups,
        )
        if not self.use_bias:
            return y
        shape, zeros = (self.features,), nn.initializers.zeros
        bias = self.param("bias", zeros, shape, jnp.float32)
        return add_bias(y, bias)

    def _gain(self) -> jax.Array:
        if not self.use_gain:
            return jnp.ones(self.features)
        shape, ones = (self.features,), nn.initializers.ones
        return self.param("gain", ones, shape, jnp.float32)
