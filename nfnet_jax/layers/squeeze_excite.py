"""Channel attention: channels scaled by a function of their own means."""

import math

import flax.linen as nn
import jax

from nfnet_jax.layers.affine import Affine, as_affine
from nfnet_jax.ops.precision import Images, in_float32


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: y = 2 · sigmoid(W₂ relu(W₁ mean(x))) · x.

    The 2 keeps the scale at W = 0 (Brock, De, Smith 2021, arXiv 2101.08692). There are
    `hidden` channels between the two linear layers. An `Affine` stays one.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: Images | Affine) -> Images | Affine:
        squeezed = as_affine(x).means()
        dtype = squeezed.dtype
        hidden = nn.relu(nn.Dense(self.hidden, name="squeeze", dtype=dtype)(squeezed))
        channels = squeezed.shape[-1]
        excited = nn.Dense(channels, name="excite", dtype=dtype)(hidden)
        return _scale_channels(x, excited)


class EfficientChannelAttention(nn.Module):
    """Efficient channel attention: y = 2 · sigmoid(w ∗ mean(x)) · x, ∗ along channels.

    Wang et al. 2020, "ECA-Net: Efficient channel attention for deep convolutional
    neural networks" (arXiv 1910.03151). The kernel has the odd size next to
    (log₂ C + 1) / 2, at least 3, and no bias; zeros continue the channels.
    """

    @nn.compact
    def __call__(self, x: Images | Affine) -> Images | Affine:
        squeezed = as_affine(x).means()
        size = max(3, int((math.log2(squeezed.shape[-1]) + 1) / 2) | 1)
        conv = nn.Conv(1, (size,), use_bias=False, name="conv", dtype=squeezed.dtype)
        return _scale_channels(x, conv(squeezed[..., None])[..., 0])


def _scale_channels(x: Images | Affine, excited: jax.Array) -> Images | Affine:
    if isinstance(x, Affine):
        return x.times(2 * nn.sigmoid(excited)[:, None, None])
    return _scaled_images(x, excited)


@in_float32
def _scaled_images(x: jax.Array, excited: jax.Array) -> jax.Array:
    return 2 * nn.sigmoid(excited)[:, None, None] * x
