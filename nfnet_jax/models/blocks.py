"""Parts of a residual block: branch, channel attention, shortcut; ImageNet stem."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from nfnet_jax.layers.activations import ScaledActivation
from nfnet_jax.layers.affine import Affine, as_affine
from nfnet_jax.layers.residual import Nonlinearity
from nfnet_jax.layers.squeeze_excite import EfficientChannelAttention, SqueezeExcite
from nfnet_jax.ops.pixel_blocks import ENTER_PAIRS, PAIRS_3X3, LeavePairs
from nfnet_jax.ops.pooling import max_pool
from nfnet_jax.ops.precision import Images, Scalar

Conv = Callable[..., nn.Module]
"""(features, kernel_size, strides, groups=..., name=...) -> a convolution."""
Attention = Callable[[int], nn.Module]
"""(channels) -> module that scales them."""
Projection = Callable[[Conv, int, int], nn.Module]
"""(conv, width, stride) -> shortcut of a transition block."""
LANES = 128
"""Numbers that lie side by side in a register of a TPU."""


class ConvSpec(NamedTuple):
    """Convolution of a branch: `size` x `size`, to `features` channels."""

    name: str
    features: int
    size: int
    stride: int = 1
    groups: int = 1

    def build(self, conv: Conv, **settings: Any) -> nn.Module:
        """Module made by `conv`, with more `settings` of that."""
        size, strides = (self.size,) * 2, (self.stride,) * 2
        settings |= {"groups": self.groups, "name": self.name}
        return conv(self.features, size, strides, **settings)


def bottleneck(
    inner: int, width: int, stride: int, spatial_convs: int = 1, groups: int = 1
) -> tuple[ConvSpec, ...]:
    """1x1 to `inner`, `spatial_convs` 3x3 (the first strided), 1x1 to `width`."""
    spatial = (
        ConvSpec("conv1" + "bcd"[i - 1 : i] * (i > 0), inner, 3, strides, groups)
        for i, strides in enumerate([stride, *[1] * (spatial_convs - 1)])
    )
    return ConvSpec("conv0", inner, 1), *spatial, ConvSpec("conv2", width, 1)


def basic(width: int, stride: int) -> tuple[ConvSpec, ...]:
    """Two 3x3 convolutions, the first strided."""
    return ConvSpec("conv0", width, 3, stride), ConvSpec("conv1", width, 3)


def group_count(width: float, group_width: int) -> int:
    """Number of groups of `group_width` channels that fit into `width`.

    Raises:
      ValueError: not even one.
    """
    groups = int(width) // group_width
    if groups < 1:
        raise ValueError(
            f"group_width {group_width}: expected at most the {int(width)} channels "
            "inside the narrowest block"
        )
    return groups


def channel_attention(
    kind: str, se_ratio: float, divisor: int | None = None
) -> Attention | None:
    """Squeeze-and-excitation ("se") or efficient channel attention ("eca").

    The hidden width of squeeze-and-excitation is `se_ratio` of its channels, rounded to
    `divisor` (see `round_channels`); at 0 there is no attention.

    Raises:
      ValueError: unknown kind.
    """
    if kind == "eca":
        return _efficient_attention
    if kind != "se":
        raise ValueError(f"attention {kind!r}: expected 'se' or 'eca'")
    return functools.partial(_squeeze_excite, se_ratio, divisor) if se_ratio else None


def _efficient_attention(channels: int) -> nn.Module:
    return EfficientChannelAttention(name="channel_attention")


def _squeeze_excite(ratio: float, divisor: int | None, channels: int) -> nn.Module:
    hidden = max(1, round_channels(ratio * channels, divisor, least=0.0))
    return SqueezeExcite(hidden, name="squeeze_excite")


def round_channels(width: float, divisor: int | None, least: float = 0.9) -> int:
    """Rounds `width` down, or with a `divisor` to its nearest multiple.

    If the nearest multiple is less than `least` of `width`, the next larger one is
    taken.
    """
    if divisor is None:
        return int(width)
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded if rounded >= least * width else rounded + divisor


class Branch(nn.Module):
    """Convolutions with the nonlinearity between them, and channel attention if any.

    Attention scales the output, or with `attention_inside` the input of the
    nonlinearity before the last convolution. The output, multiplied by `scale`, is an
    `Affine` where the last convolution has a bias. `fill_lanes`: computes the same with
    signals that fill the lanes of a TPU (`_forms`).
    """

    convs: tuple[ConvSpec, ...]
    conv: Conv
    activation: Nonlinearity
    attention: Attention | None = None
    attention_inside: bool = False
    fill_lanes: bool = False

    @nn.compact
    def __call__(
        self, x: Images, scale: Scalar = 1.0, *, train: bool
    ) -> Images | Affine:
        *_, last = self.convs
        forms = self._forms(x.shape[2]) if self.fill_lanes else {}
        for spec, following in itertools.pairwise(self.convs):
            x = spec.build(self.conv, **forms.get(spec.name, {}))(x)
            if following is last and self.attention_inside:
                x = self._attend(x, spec.features)
            x = self.activation(x, train=train)
        conv = last.build(self.conv, defer_bias=True, **forms.get(last.name, {}))
        if self.attention and not self.attention_inside:
            # Attention must see the unscaled signal.
            return as_affine(self._attend(conv(x), last.features)).times(scale)
        return conv(x, scale)

    def _forms(self, width: int) -> dict[str, dict[str, Any]]:
        """Settings of `WSConv` by name, for signals whose channels fill `LANES`.

        Few channels are those of pairs of pixels (`ops.pixel_blocks`). Groups of a
        multiple of `LANES` channels are split as the next convolution reads them,
        except in front of a stride: such a convolution takes no activation in. With
        its means known first, attention scales a signal in the pass that writes it.
        BatchNorm, and attention inside, need the channels as they are.
        """
        elementwise = isinstance(self.activation, ScaledActivation)
        if self.attention_inside or not elementwise:
            return {}
        sizes = tuple(spec.size for spec in self.convs)
        narrow = all(2 * spec.features <= LANES for spec in self.convs[:-1])
        plain = all(spec.stride == spec.groups == 1 for spec in self.convs)
        if sizes == (1, 3, 1) and narrow and plain and width % 2 == 0:
            blocks = ENTER_PAIRS, PAIRS_3X3, LeavePairs()
            names = (spec.name for spec in self.convs)
            return {n: {"blocks": b} for n, b in zip(names, blocks, strict=True)}
        forms = {}
        for spec, following in itertools.pairwise(self.convs):
            reader = spec if following.size == 1 else following
            fills = reader.features // reader.groups % LANES == 0
            if reader.groups > 1 and reader.stride == 1 and fills:
                forms[spec.name] = {"split": reader.groups}
        if forms and self.attention and self.convs[-1].size == 1:
            forms[self.convs[-1].name] = {"means_first": True}
        return forms

    def _attend(self, x: Any, channels: int) -> Any:
        return self.attention(channels)(x) if self.attention else x


class ImageNetStem(nn.Module):
    """7x7 convolution to `width` channels and 3x3 max pooling, each of stride 2.

    Sides are rounded up at both strides.
    """

    conv: Conv
    width: int = 64
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Images) -> Images:
        conv = self.conv(self.width, (7, 7), (2, 2), defer_bias=True, name="conv")
        y = as_affine(conv(x))
        # max(y + bias) = max(y) + bias, and a fourth of the numbers meet the bias.
        return y._replace(x=max_pool(y.x, self.padding)).value()


def strided_projection(conv: Conv, width: int, stride: int) -> nn.Module:
    """1x1 convolution that skips pixels."""
    return conv(width, (1, 1), (stride, stride), defer_bias=True)


def pooled_projection(conv: Conv, width: int, stride: int) -> nn.Module:
    """1x1 convolution, of the averages of 2x2 pixels where the stride is 2."""
    return conv(width, (1, 1), pool=stride > 1, defer_bias=True)
