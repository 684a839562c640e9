"""Small networks for 32x32 images that learn fast, without normalization.

The shape is that of cifar10-airbench: a fixed whitening of 2x2 patches, three groups of
two 3x3 convolutions with pooling, a mean over all positions, a classifier. In the
place of BatchNorm stand kernels standardized for correlated pixels, γ-scaled
activations, and a gain and bias that are set once, from images, at initialization. A
shortcut around every second convolution, and averages, which are linear, instead of
maxima keep the signal in its place afterwards.
"""

import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfnet_jax.layers.activations import ScaledActivation
from nfnet_jax.layers.correlated_conv import CorrelatedConv
from nfnet_jax.models.network import Head, Network
from nfnet_jax.models.variant import Options, Variant, cifar_variant
from nfnet_jax.ops.conv import conv2d
from nfnet_jax.ops.precision import (
    Examples,
    Images,
    Kernel,
    at_least_float32,
    in_float32,
)
from nfnet_jax.utils.errors import UserError

WIDTHS = (1, 4, 4)
"""Widths of the groups, in units of the W in `nf_air_W`."""
PATCH = 2
LEAST_SIZE = PATCH - 1 + 2 ** len(WIDTHS)
VARIANCE_FLOOR = 5e-4
"""Added to the variances that whitening divides by, so that it does not blow up noise.
Pixels have variance 1."""


def nf_air(num_classes: int, options: Options, *, width: int) -> Network:
    """Groups of `width`, 4 `width` and 4 `width` channels.

    Initialize it with a batch of normalized training images: the whitening and the
    output moments of every convolution come from them. Of `options` it takes
    `activation`, `gamma`, `drop_rate` and `weight_standardization`.

    Raises:
      ValueError: width is not positive.
    """
    if width < 1:
        raise ValueError(f"width {width}: expected at least 1")
    activation = options.scaled_activation()
    standardized = options.weight_standardization
    stages = tuple(
        ConvGroup(width * share, activation, standardized) for share in WIDTHS
    )
    head = Head(num_classes, _centred_mean, options.drop_rate)
    # Its stages are not residual ones.
    return Network(Whitening(activation), stages, head)  # type: ignore[arg-type]


def parse(name: str) -> Variant | None:
    """Returns the variant `name`, or None if no variant here has that name."""
    if match := re.fullmatch(r"nf_air_(\d+)", name):
        traits = {"foldable": False, "follows_beta_schedule": False}
        settings = {"width": int(match[1]), "activation": "gelu"}
        return cifar_variant(nf_air, settings, initialized_from_images=True, **traits)
    return None


VARIANTS: dict[str, Variant] = {}


class Whitening(nn.Module):
    """Patches in the basis of their principal components, each and its negative.

    The parameter `kernel` [2, 2, C, 8 C] is computed from the images that the network
    is initialized with and meant to stay (`optim.freeze`). The output is activated.

    Raises:
      UserError: images too small for the poolings.
    """

    activation: ScaledActivation

    @nn.compact
    def __call__(self, x: Images) -> Images:
        if min(x.shape[1:3]) < LEAST_SIZE:
            raise UserError(
                f"images of {x.shape[1]}x{x.shape[2]} pixels are too small for nf_air "
                f"networks, expected at least {LEAST_SIZE}x{LEAST_SIZE}"
            )
        kernel = self.param("kernel", lambda key: whitening_kernel(x))
        return self.activation(conv2d(x, kernel.astype(x.dtype), padding="VALID"))


def whitening_kernel(images: Images) -> Kernel:
    """Float32 filters [2, 2, C, 8 C] with uncorrelated outputs of unit variance.

    With λ, v the eigenvalues and vectors of the covariance of all 2x2 patches of
    `images`, the filters are ± v / sqrt(λ + VARIANCE_FLOOR), those of the
    largest variance first.
    """
    channels = images.shape[-1]
    height, width = images.shape[1] - PATCH + 1, images.shape[2] - PATCH + 1
    shifted = [
        images[:, row : row + height, column : column + width]
        for row in range(PATCH)
        for column in range(PATCH)
    ]
    patches = (
        jnp.stack(shifted, 3).reshape(-1, PATCH * PATCH * channels).astype(jnp.float32)
    )
    values, vectors = jnp.linalg.eigh(jnp.cov(patches, rowvar=False))
    scales = jax.lax.rsqrt(values + VARIANCE_FLOOR)
    filters = (vectors * scales[None])[:, ::-1]
    filters = jnp.concatenate([filters, -filters], axis=1)
    return filters.reshape(PATCH, PATCH, channels, -1)


class ConvGroup(nn.Module):
    """y = norm(pool(conv(x))); act((y + norm(conv(act(y)))) / √2), both 3x3.

    `norm` is `UnitMoments`, so that both terms start with variance 1.
    """

    width: int
    activation: ScaledActivation
    standardized: bool

    @nn.compact
    def __call__(self, x: Images, examples: Examples = None, *, train: bool) -> Images:
        conv = functools.partial(
            CorrelatedConv, self.width, standardized=self.standardized
        )
        y = UnitMoments(name="moments0")(conv(pool=True, name="conv0")(x))
        h = conv(name="conv1")(self.activation(y))
        return self.activation((y + UnitMoments(name="moments1")(h)) / math.sqrt(2))


class UnitMoments(nn.Module):
    """Affine map y = gain · x + bias of every channel, set by the first images.

    `gain` and `bias` [C] start so that y has mean 0 and variance 1 over the images that
    the network is initialized with (Salimans, Kingma 2016, "Weight normalization",
    arXiv 1602.07868, section 3), and are trained like any other; no statistics are
    computed afterwards.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "... C"]) -> Float[Array, "... C"]:
        gain = self.param("gain", lambda key: 1 / _std(x))
        bias = self.param("bias", lambda key: -_mean(x) / _std(x))
        return _affine(x, gain, bias)


@in_float32
def _affine(x: jax.Array, gain: jax.Array, bias: jax.Array) -> jax.Array:
    leading = range(x.ndim - 1)
    return x * jnp.expand_dims(gain, leading) + jnp.expand_dims(bias, leading)


def _centred_mean(x: jax.Array, *, train: bool) -> jax.Array:
    """Means of all positions, centred so that classes share few of their logits."""
    means = x.mean((1, 2), dtype=at_least_float32(x.dtype), keepdims=True)
    return UnitMoments(name="moments")(means)


def _mean(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32).mean(range(x.ndim - 1))


def _std(x: jax.Array) -> jax.Array:
    """Standard deviation; 1 where x is constant, as in an initialization with zeros."""
    std = x.astype(jnp.float32).std(range(x.ndim - 1))
    return jnp.where(std > 1e-3, std, 1.0)
