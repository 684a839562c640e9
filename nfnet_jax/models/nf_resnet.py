"""NF-ResNets [SP]: for ImageNet, wide ones for CIFAR, and this project's ancestor.

Blocks are pre-activation; a transition block strides its 1x1 projection, so that the
measured variance of the signal follows the β schedule without correction.
"""

import re

from nfnet_jax.models.blocks import (
    Attention,
    Projection,
    bottleneck,
    channel_attention,
    pooled_projection,
    strided_projection,
)
from nfnet_jax.models.network import Network
from nfnet_jax.models.resnet import (
    DEPTHS,
    WIDTHS,
    Plan,
    cifar_plan,
    imagenet_plan,
    preactivation_resnet,
    wide_plan,
)
from nfnet_jax.models.stage import Options
from nfnet_jax.models.variant import TIMM, Variant, cifar_variant


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
    plan = imagenet_plan(depths, widths, width_multiplier)
    projection = pooled_projection if pooled else strided_projection
    scale = channel_attention(attention, se_ratio)
    return _network(num_classes, options, plan, scale, projection)


def nf_wrn(
    num_classes: int, options: Options, *, depth: int, width: int, pooled: bool = False
) -> Network:
    """Wide NF-ResNet for 32x32 images: depth 6n + 4, stages of 16K, 32K, 64K channels.

    `pooled`: projections average-pool instead of skipping pixels.

    Raises:
      ValueError: depth is not 6n + 4 with n >= 1, or width is not positive.
    """
    projection = pooled_projection if pooled else strided_projection
    return _network(
        num_classes, options, wide_plan(depth, width), projection=projection
    )


def nf_bottleneck(
    num_classes: int, options: Options, *, blocks: int, width: int
) -> Network:
    """The network this project grew from, done right: 1-3-3-1 bottlenecks.

    Three stages of `blocks` blocks, `width`, 2 `width` and 4 `width` channels inside
    and four times as many outside; for 32x32 images.
    """
    plan = cifar_plan(
        blocks,
        4 * width,
        lambda place: bottleneck(
            place.width // 4, place.width, place.stride, spatial_convs=2
        ),
    )
    return _network(num_classes, options, plan)


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
    """The variant of this file that is called `name`, None where it is another's."""
    if match := re.fullmatch(r"nf_wrn_(\d+)_(\d+)", name):
        settings = {"depth": int(match[1]), "width": int(match[2])}
        return cifar_variant(nf_wrn, settings)
    if match := re.fullmatch(r"nf_bottleneck_(\d+)_(\d+)", name):
        settings = {"blocks": int(match[1]), "width": int(match[2])}
        return cifar_variant(nf_bottleneck, settings)
    return VARIANTS.get(name)


def _network(
    num_classes: int,
    options: Options,
    plan: Plan,
    attention: Attention | None = None,
    projection: Projection = strided_projection,
) -> Network:
    conv = options.conv()
    return preactivation_resnet(
        num_classes,
        options,
        plan,
        conv=conv,
        stem_conv=conv,
        activation=options.scaled_activation(),
        attention=attention,
        projection=projection,
    )
