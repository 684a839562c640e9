"""NF-ResNets for ImageNet, wide ones for CIFAR, and the ancestor of this project.

Brock, De, Smith 2021, "Characterizing signal propagation to close the performance gap
in unnormalized ResNets" (arXiv 2101.08692). Blocks are pre-activation; a transition
block strides its 1x1 projection, so that the measured variance of the signal follows
the β schedule without correction. The plans are those of the baselines too.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

import flax.linen as nn

from nfnet_jax.layers.residual import Nonlinearity
from nfnet_jax.models.blocks import (
    Attention,
    Branch,
    Conv,
    ConvSpec,
    ImageNetStem,
    Projection,
    basic,
    bottleneck,
    channel_attention,
    pooled_projection,
    strided_projection,
)
from nfnet_jax.models.network import Head, Network, preactivation_network
from nfnet_jax.models.stage import Layout, Place, scaled_widths
from nfnet_jax.models.variant import TIMM, Options, Variant, cifar_variant

DEPTHS = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    288: (24, 24, 24, 24),
    600: (50, 50, 50, 50),
}
WIDTHS = (256, 512, 1024, 2048)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Layout of the stages, convolutions of a branch, and kind of the stem.

    `imagenet_stem`: 7x7 convolution and max pooling; otherwise a 3x3 convolution.
    """

    layout: Layout
    convs: Callable[[Place], tuple[ConvSpec, ...]]
    imagenet_stem: bool

    def stem(self, conv: Conv, padding: str) -> nn.Module:
        """Stem of convolutions that `conv` makes."""
        width = self.layout.stem_width
        if self.imagenet_stem:
            return ImageNetStem(conv, width, padding)
        return conv(width, (3, 3))


def imagenet_plan(
    depths: tuple[int, ...], widths: tuple[int, ...], width_multiplier: float
) -> Plan:
    """Bottlenecks a quarter as wide inside; the stem as wide as the first of them."""
    widths = scaled_widths(widths, width_multiplier)
    strides = (1, *[2] * (len(widths) - 1))
    return Plan(
        Layout(widths[0] // 4, widths, depths, strides),
        lambda place: bottleneck(place.width // 4, place.width, place.stride),
        imagenet_stem=True,
    )


def wide_plan(depth: int, width: int) -> Plan:
    """Two 3x3 per block: depth 6n + 4, stages of 16K, 32K, 64K channels.

    Raises:
      ValueError: depth is not 6n + 4 with n >= 1.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        valid = 6 * max(1, round((depth - 4) / 6)) + 4
        raise ValueError(f"depth {depth}: expected 6n + 4, the nearest is {valid}")
    return cifar_plan(
        blocks, 16 * width, lambda place: basic(place.width, place.stride)
    )


def cifar_plan(
    blocks: int, width: int, convs: Callable[[Place], tuple[ConvSpec, ...]]
) -> Plan:
    """Three stages of `blocks` blocks with `width`, 2 `width`, 4 `width` channels."""
    layout = Layout(16, (width, 2 * width, 4 * width), (blocks,) * 3, (1, 2, 2))
    return Plan(layout, convs, imagenet_stem=False)


def preactivation_resnet(
    num_classes: int,
    options: Options,
    plan: Plan,
    conv: Conv,
    *,
    stem_conv: Conv | None = None,
    activation: Nonlinearity | None = None,
    attention: Attention | None = None,
    projection: Projection = strided_projection,
    classifier_init: nn.initializers.Initializer = Head.kernel_init,
) -> Network:
    """Network of `plan` from these convolutions; a `stem_conv` of None is `conv`."""
    activation = activation or options.scaled_activation()
    return preactivation_network(
        num_classes,
        options,
        plan.layout,
        plan.stem(stem_conv or conv, options.padding),
        lambda place: Branch(plan.convs(place), conv, activation, attention),
        functools.partial(projection, conv),
        activation=activation,
        classifier_init=classifier_init,
    )


def nf_resnet(
    num_classes: int,
    options: Options,
    *,
    depths: tuple[int, ...],
    widths: tuple[int, ...] = WIDTHS,
    width_multiplier: float = 1.0,
    se_ratio: float = 0.0,
    attention: str = "se",
    pooled: bool = False,
) -> Network:
    """NF-ResNet for large images: 7x7 stem, bottleneck blocks, four stages.

    `pooled`: projections average-pool instead of skipping pixels. `attention`: see
    `channel_attention`.
    """
    return preactivation_resnet(
        num_classes,
        options,
        imagenet_plan(depths, widths, width_multiplier),
        options.conv(),
        attention=channel_attention(attention, se_ratio),
        projection=pooled_projection if pooled else strided_projection,
    )


def nf_wrn(
    num_classes: int, options: Options, *, depth: int, width: int, pooled: bool = False
) -> Network:
    """Wide NF-ResNet for 32x32 images: depth 6n + 4, stages of 16K, 32K, 64K channels.

    `pooled`: projections average-pool instead of skipping pixels.

    Raises:
      ValueError: depth is not 6n + 4 with n >= 1, or width is not positive.
    """
    plan, conv = wide_plan(depth, width), options.conv()
    projection = pooled_projection if pooled else strided_projection
    return preactivation_resnet(num_classes, options, plan, conv, projection=projection)


def nf_bottleneck(
    num_classes: int, options: Options, *, blocks: int, width: int
) -> Network:
    """Network that this project grew from, corrected: 1-3-3-1 bottlenecks.

    Three stages of `blocks` blocks, `width`, 2 `width` and 4 `width` channels inside
    and four times as many outside; for 32x32 images.
    """

    def convs(place: Place) -> tuple[ConvSpec, ...]:
        return bottleneck(place.width // 4, place.width, place.stride, spatial_convs=2)

    plan = cifar_plan(blocks, 4 * width, convs)
    return preactivation_resnet(num_classes, options, plan, options.conv())


VARIANTS = {
    f"nf_resnet{layers}": Variant(
        nf_resnet, {"depths": depths, "stochastic_depth": 0.1}, 224, 224
    )
    for layers, depths in DEPTHS.items()
} | {
    f"timm_{name}": Variant(
        nf_resnet,
        TIMM | {"depths": DEPTHS[50], "pooled": True} | attention,
        256,
        288,
        crop=crop,
    )
    for name, attention, crop in (
        ("nf_resnet50", {}, 0.94),
        ("nf_seresnet50", {"se_ratio": 1 / 16}, 0.9),
        ("nf_ecaresnet50", {"attention": "eca"}, 0.9),
    )
}


def parse(name: str) -> Variant | None:
    """Returns the variant `name`, or None if no variant here has that name."""
    if match := re.fullmatch(r"nf_wrn_(\d+)_(\d+)", name):
        settings = {"depth": int(match[1]), "width": int(match[2])}
        return cifar_variant(nf_wrn, settings)
    if match := re.fullmatch(r"nf_bottleneck_(\d+)_(\d+)", name):
        settings = {"blocks": int(match[1]), "width": int(match[2])}
        return cifar_variant(nf_bottleneck, settings)
    return VARIANTS.get(name)
