"""Fixup: post-activation residual blocks that scalar biases and initialization tame.

Zhang, Dauphin, Ma 2019, "Fixup initialization: residual learning without
normalization" (arXiv 1901.09321).
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from nfnet_jax.layers.activations import ScaledActivation
from nfnet_jax.layers.dropout import StochasticDepth
from nfnet_jax.models.blocks import Conv, ConvSpec
from nfnet_jax.models.network import normal
from nfnet_jax.ops.pooling import max_pool
from nfnet_jax.ops.precision import Examples, Images, Scalar, add_bias, scaled


class FixupStem(nn.Module):
    """`conv`, scalar bias, activation, and 3x3 max pooling of stride 2 if `pool`."""

    conv: nn.Module
    activation: ScaledActivation
    pool: bool
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Images) -> Images:
        x = self.activation(_add_bias(self, "bias1", self.conv(x)))
        return max_pool(x, self.padding) if self.pool else x


class FixupBranch(nn.Module):
    """m convolutions between scalar biases, the last initialized to zero and scaled.

    The others are normal of variance 2 / (features · size²) · L^(−1 / (m − 1)), where L
    is the number of blocks in the network. The first input bias is the block's.
    """

    convs: tuple[ConvSpec, ...]
    conv: Conv
    activation: ScaledActivation
    blocks: int

    @nn.compact
    def __call__(self, x: Images, *, train: bool) -> Images:
        *inner, last = self.convs
        for i, spec in enumerate(inner, 1):
            x = _add_bias(self, f"bias{i}a", x) if i > 1 else x
            x = spec.build(self.conv, kernel_init=self._initializer(spec))(x)
            x = self.activation(_add_bias(self, f"bias{i}b", x))
        m = len(self.convs)
        x = _add_bias(self, f"bias{m}a", x)
        x = last.build(self.conv, kernel_init=nn.initializers.zeros)(x)
        x = scaled(x, self.param("scale", nn.initializers.ones, (), jnp.float32))
        return _add_bias(self, f"bias{m}b", x)

    def _initializer(self, spec: ConvSpec) -> nn.initializers.Initializer:
        depth_scale = self.blocks ** (-1 / (len(self.convs) - 1))
        variance = 2 / (spec.features * spec.size**2) * depth_scale
        return nn.initializers.normal(math.sqrt(variance))


class FixupBlock(nn.Module):
    """Residual block x ← act(branch(o) + shortcut(o)) with o = x + bias.

    The shortcut of most blocks is o. Called as `ResidualBlock` is; `beta` has no
    effect.
    """

    branch: nn.Module
    activation: ScaledActivation
    shortcut: nn.Module | None = None

    @nn.compact
    def __call__(
        self,
        x: Images,
        beta: Scalar,
        drop_rate: Scalar,
        examples: Examples = None,
        *,
        train: bool,
    ) -> Images:
        x = _add_bias(self, "bias1a", x)
        y = self.branch(x, train=train)
        y = StochasticDepth()(y, drop_rate, examples, train=train)
        return self.activation(y + (self.shortcut(x) if self.shortcut else x))


def fixup_projection(conv: Conv, width: int, stride: int) -> nn.Module:
    """1x1 convolution that skips pixels, normal of variance 2 / width."""
    initializer = functools.partial(normal, std=math.sqrt(2 / width))
    return conv(width, (1, 1), (stride, stride), kernel_init=initializer)


def _add_bias(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    zeros = nn.initializers.zeros
    return add_bias(x, module.param(name, zeros, (), jnp.float32))
