"""Convolutions with scaled weight standardization.

Qiao, Wang, Liu, Shen, Yuille 2019, "Micro-batch training with batch-channel
normalization and weight standardization" (arXiv 1903.10520), scaled as in section 4.2
of Brock, De, Smith 2021, "Characterizing signal propagation to close the performance
gap in unnormalized ResNets" (arXiv 2101.08692).
"""

import functools
import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from nfnet_jax.layers.affine import Affine, pointwise_means
from nfnet_jax.ops.conv import conv2d
from nfnet_jax.ops.pixel_blocks import BlockConv, LeavePairs
from nfnet_jax.ops.precision import (
    Images,
    Kernel,
    Scalar,
    add_bias,
    at_least_float32,
    check_floating,
)
from nfnet_jax.ops.standardize import EPS, with_fast_gradient
from nfnet_jax.ops.windows import Padding, pair


def fan_in_normal(
    key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32
) -> Kernel:
    """Normal weights of variance 1 / fan-in; unlike Flax's own, it can be pickled."""
    return nn.initializers.variance_scaling(1.0, "fan_in", "normal")(key, shape, dtype)


@with_fast_gradient
def standardize(
    kernel: Kernel, gain: Float[Array, " O"], eps: float = EPS, var_eps: float = 0.0
) -> Kernel:
    """Ŵ = gain · (W − mean) / sqrt(max(N · (var + var_eps), eps)), filter by filter.

    A filter is the N = KH · KW · C / groups weights of an output channel, `var` is
    their biased variance. `eps` is the floor of N · var, inside the root, so that a
    constant filter has finite gradients. `var_eps` is 0 in the reference; timm adds
    1e-5 instead of taking the floor. The result is at least float32. Where a gradient
    is asked for, `ops.standardize` computes this formula and its gradient: change both.

    Raises:
      ValueError: N = 1, where every standardized filter is zero.
    """
    filters = kernel.reshape(-1, kernel.shape[-1])
    mean = filters.mean(0, keepdims=True)
    power = len(filters) * (filters.var(0, keepdims=True) + var_eps)
    scale = gain[None] * lax.rsqrt(jnp.maximum(power, eps))
    return ((filters - mean) * scale).reshape(kernel.shape)


class WSConv(nn.Module):
    """Convolution with a standardized kernel, a learned gain and a bias.

    Parameters, all float32: `kernel` [KH, KW, C / groups, features], `gain` (ones) and
    `bias` (zeros) [features]. `standardized=False` leaves the kernel as it is (for
    ablations and for the baselines) and has no gain. `use_bias=False`: no bias.
    `padding="symmetric"`: (kernel_size - 1) // 2 pixels on every side. `gamma`: a
    constant factor of the gain. `var_eps`: see `standardize`. `pool`: averages 2x2
    pixels first and multiplies them by `pool_gain`. A single number is taken for both
    axes.

    For the programs that compilers make of it: `defer_bias=True` returns an `Affine`
    with the bias as its shift and, with `means_first`, the means of a 1x1 convolution,
    computed before it (`pointwise_means`). `split`: see `conv2d`. `blocks`: replaces
    the convolution of pixels by one of blocks of pixels.
    """

    features: int
    kernel_size: int | Sequence[int] = (3, 3)
    strides: int | Sequence[int] = (1, 1)
    padding: Padding = "SAME"
    groups: int = 1
    standardized: bool = True
    gamma: float = 1.0
    var_eps: float = 0.0
    use_bias: bool = True
    defer_bias: bool = False
    means_first: bool = False
    split: int = 1
    blocks: BlockConv | LeavePairs | None = None
    pool: bool = False
    pool_gain: float = 1.0
    kernel_init: nn.initializers.Initializer = fan_in_normal

    @nn.compact
    def __call__(self, x: Images, scale: Scalar = 1.0) -> Images | Affine:
        """Returns `scale` times the convolution and its bias.

        The scale multiplies the kernel: its gradient then follows from that of the
        kernel, and the output need not be kept for it.
        """
        if self.pool:
            x = self.pool_gain * AveragePool(name="averaged")(x)
        check_floating(x.dtype)
        size = pair(self.kernel_size, "kernel_size")
        # An error about `groups` is left to `conv2d`.
        groups = self.groups if isinstance(self.groups, Integral) else 1
        channels = math.prod(x.shape[3:])
        if self.blocks:
            channels //= math.prod(self.blocks.inputs)
        shape = (*size, channels // max(1, groups), self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        scale = jnp.asarray(scale, kernel.dtype)
        if self.standardized:
            gain = self._vector("gain", nn.initializers.ones)
            gain = scale * self.gamma * gain
            kernel = standardize(kernel, gain, var_eps=self.var_eps)
        else:
            kernel = scale * kernel
        convolve = self.blocks or functools.partial(
            conv2d,
            strides=self.strides,
            padding=self.padding,
            groups=self.groups,
            split=self.split,
        )
        kernel = kernel.astype(x.dtype)
        y = convolve(x, kernel)
        if not self.use_bias:
            return y
        bias = scale * self._vector("bias", nn.initializers.zeros)
        if self.blocks:
            bias = jnp.tile(bias, math.prod(self.blocks.outputs))
        if self.defer_bias:
            mean = pointwise_means(x, kernel) if self.means_first else None
            shift = bias[None, None, None].astype(at_least_float32(y.dtype))
            return Affine(y, 1.0, shift, mean)
        return add_bias(y, bias)

    def _vector(self, name: str, init: nn.initializers.Initializer) -> jax.Array:
        return self.param(name, init, (self.features,), jnp.float32)


class AveragePool(nn.Module):
    """2x2 average pooling, stride 2, "SAME": edge windows divide by their real pixels.

    Odd sides are rounded up; the dtype stays. A module, so that the analysis can watch
    the signal around it.
    """

    def __call__(self, x: Images) -> Images:
        dtype = at_least_float32(x.dtype)
        pixels = jnp.ones((1, *x.shape[1:3], 1), dtype)
        return (_sums(x.astype(dtype)) / _sums(pixels)).astype(x.dtype)


def _sums(x: jax.Array) -> jax.Array:
    """Sums of 2x2 pixels, stride 2, "SAME"."""
    window, zero = (1, 2, 2, 1), np.zeros((), x.dtype)
    return lax.reduce_window(x, zero, lax.add, window, window, "SAME")
