"""3x3 convolutions standardized for pixels that resemble their neighbours."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfnet_jax.layers.ws_conv import EPS, fan_in_normal
from nfnet_jax.ops.conv import conv2d
from nfnet_jax.ops.precision import Images, Kernel, at_least_float32
from nfnet_jax.ops.standardize import FAN_IN

SIZE = 3
DECAY = 0.7
"""Decay of the correlation with distance in pixels. In the features of CIFAR-10 that
the convolutions of an `nf_air_32` see at initialization, pixels side by side correlate
by 0.3 to 0.6; exp(-0.7) = 0.50."""
POOLED_DECAY = 0.28
"""Decay between averages of 2x2 pixels that overlap: of exp(-0.7 d) along a row,
(1 + 2 exp(-0.7) + exp(-1.4)) / (2 + 2 exp(-0.7)) = 0.75 = exp(-0.28)."""


class CorrelatedConv(nn.Module):
    """3x3 convolution without a bias, see `standardize_correlated`.

    `pool`: see `pooled_conv`. The parameter `kernel` is [3, 3, C, features];
    `standardized=False` leaves it as it is, an ablation.
    """

    features: int
    pool: bool = False
    standardized: bool = True

    @nn.compact
    def __call__(self, x: Images) -> Images:
        shape = (SIZE, SIZE, x.shape[-1], self.features)
        kernel = self.param("kernel", fan_in_normal, shape, jnp.float32)
        if self.standardized:
            decay = POOLED_DECAY if self.pool else DECAY
            kernel = standardize_correlated(kernel, decay)
        kernel = kernel.astype(x.dtype)
        return pooled_conv(x, kernel) if self.pool else conv2d(x, kernel)


def standardize_correlated(kernel: Kernel, decay: float) -> Kernel:
    """Ŵ = V / sqrt(Σ_c V_cᵀ R V_c), V = W − mean, filter by filter.

    The root is the standard deviation of a filter's output where the input's channels
    are independent, of variance 1, and pixels at distance d correlate by R =
    exp(−decay · d). Scaled weight standardization is the case where R is the identity:
    it takes pixels for independent, so that a filter's output grows while the filter
    learns to be smooth. The result is at least float32.
    """
    height, width, *_ = kernel.shape
    kernel = kernel.astype(at_least_float32(kernel.dtype))
    centred = kernel - kernel.mean(FAN_IN, keepdims=True)
    filters = centred.reshape(height * width, *kernel.shape[2:])
    pixels = correlation(height, width, decay).astype(kernel.dtype)
    correlated = jnp.einsum("kl,lco->kco", pixels, filters)
    variance = (filters * correlated).sum((0, 1))
    return centred * jax.lax.rsqrt(jnp.maximum(variance, EPS))[None, None, None]


def correlation(height: int, width: int, decay: float) -> Float[Array, "H*W H*W"]:
    """Correlation exp(−decay · distance) of all pairs of pixels of a window."""
    places = list(itertools.product(range(height), range(width)))
    distances = [[math.dist(a, b) for b in places] for a in places]
    return jnp.exp(-decay * jnp.array(distances))


def pooled_conv(x: Images, kernel: Kernel) -> Images:
    """Averages of 2x2 pixels, stride 2, of a 3x3 "SAME" convolution.

    The odd last row and column are left out. Averages and convolutions commute:
    averaged first, the convolution has stride 2, and a quarter of the multiplications.
    """
    height, width = (pixels // 2 * 2 for pixels in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, : height + 2, : width + 2]
    x = x[:, :-1] + x[:, 1:]
    x = (x[:, :, :-1] + x[:, :, 1:]) / 4
    return conv2d(x, kernel, strides=(2, 2), padding="VALID")
