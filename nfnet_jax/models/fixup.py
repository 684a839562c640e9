"""Fixup: post-activation residual blocks that scalar biases and initialization tame.

Zhang, Dauphin, Ma 2019, *Fixup initialization: residual learning without
normalization* (arXiv 1901.09321).
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nfnet_jax.layers.activations import Activation
from nfnet_jax.layers.initializers import normal
from nfnet_jax.layers.pooling import max_pool
from nfnet_jax.layers.residual import StochasticDepth
from nfnet_jax.models.blocks import Conv, ConvSpec
from nfnet_jax.models.stage import average_variance, sow_signal
from nfnet_jax.ops.precision import add_bias, in_float32


class FixupStem(nn.Module):
    """`conv`, scalar bias, activation, and 3x3 max pooling of stride 2 if `pool`."""

    conv: nn.Module
    activation: Activation
    pool: bool
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.activation(_add_bias(self, "bias1", self.conv(x)))
        return max_pool(x, self.padding) if self.pool else x


class FixupBranch(nn.Module):
    """m convolutions between scalar biases, the last initialized to zero and scaled.

    The others are normal of variance 2 / (features · size²) · L^(−1 / (m − 1)), where L
    is the number of blocks in the network. The first input bias is the block's.
    """

    convs: tuple[ConvSpec, ...]
    conv: Conv
    activation: Activation
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        *inner, last = self.convs
        for i, spec in enumerate(inner, 1):
            x = _add_bias(self, f"bias{i}a", x) if i > 1 else x
            x = self._convolve(spec, self._initializer(spec), x)
            x = self.activation(_add_bias(self, f"bias{i}b", x))
        m = len(self.convs)
        x = _add_bias(self, f"bias{m}a", x)
        x = self._convolve(last, nn.initializers.zeros, x)
        x = _scaled(x, self.param("scale", nn.initializers.ones, (), jnp.float32))
        return _add_bias(self, f"bias{m}b", x)

    def _initializer(self, spec: ConvSpec) -> nn.initializers.Initializer:
        depth_scale = self.blocks ** (-1 / (len(self.convs) - 1))
        variance = 2 / (spec.features * spec.size**2) * depth_scale
        return nn.initializers.normal(math.sqrt(variance))

    def _convolve(
        self, spec: ConvSpec, initializer: nn.initializers.Initializer, x: jax.Array
    ) -> jax.Array:
        size, strides = (spec.size,) * 2, (spec.stride,) * 2
        conv = self.conv(
            spec.features, size, strides, name=spec.name, kernel_init=initializer
        )
        return conv(x)


class FixupBlock(nn.Module):
    """o = x + bias; act(branch(o) + shortcut(o)), the shortcut of most blocks being o.

    Called like `Block`; Fixup has no β. Input and output [N, H, W, C].
    """

    branch: nn.Module
    activation: Activation
    shortcut: nn.Module | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        beta: ArrayLike,
        drop_rate: ArrayLike,
        examples: jax.Array | None = None,
        *,
        train: bool,
    ) -> jax.Array:
        x = _add_bias(self, "bias1a", x)
        shortcut = self.shortcut(x) if self.shortcut else x
        y = self.branch(x, train=train)
        self.sow("signal", "res_avg_var", average_variance(y))
        y = StochasticDepth()(y, drop_rate, examples, train=train)
        x = self.activation(y + shortcut)
        sow_signal(self, x)
        return x


def fixup_projection(conv: Conv, width: int, stride: int) -> nn.Module:
    """1x1 convolution that skips pixels, normal of variance 2 / width."""
    initializer = functools.partial(normal, std=math.sqrt(2 / width))
    return conv(width, (1, 1), (stride, stride), kernel_init=initializer)


def _add_bias(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    zeros = nn.initializers.zeros
    return add_bias(x, module.param(name, zeros, (), jnp.float32))


@in_float32
def _scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    return scale * x
