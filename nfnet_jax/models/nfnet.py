"""NFNets F0 to F7 and the wider F0+ to F7+.

Brock, De, Smith, Simonyan 2021, "High-performance large-scale image recognition without
normalization" (arXiv 2102.06171). A transition block average-pools before its
projection, which removes variance that the β schedule does not include; parity with the
published networks keeps it.
"""

import dataclasses
import functools

import flax.linen as nn

from nfnet_jax.layers.activations import ScaledActivation
from nfnet_jax.models.blocks import (
    Branch,
    Conv,
    bottleneck,
    channel_attention,
    group_count,
    pooled_projection,
)
from nfnet_jax.models.network import Network, preactivation_network
from nfnet_jax.models.stage import Layout, Place, scaled_widths
from nfnet_jax.models.variant import TIMM, Options, Variant
from nfnet_jax.ops.pixel_blocks import STEM as STEM_BLOCKS
from nfnet_jax.ops.precision import Images

DEPTHS = (1, 2, 6, 3)
"""Depths of F0; those of Fn are n + 1 times as large."""
WIDTHS = {"": (256, 512, 1536, 1536), "plus": (384, 768, 2048, 2048)}

SIZES_AND_ACCURACIES = (
    # train size, test size, dropout, top-1, top-5
    (192, 256, 0.2, 83.6, 96.8),
    (224, 320, 0.3, 84.7, 97.1),
    (256, 352, 0.4, 85.1, 97.3),
    (320, 416, 0.4, 85.7, 97.5),
    (384, 512, 0.5, 85.9, 97.6),
    (416, 544, 0.5, 86.0, 97.6),
    (448, 576, 0.5, 86.5, 97.9),  # trained with SAM
    (480, 608, 0.5, None, None),
)


class NFNetStem(nn.Module):
    """3x3 convolutions to 16, 32, 64 and `width` channels; strides 2, 1, 1, 2.

    Sides are rounded up at both strides. `padding`: that of `conv`. `pixel_blocks`:
    computes the same over blocks of pixels (`ops.pixel_blocks`), where they fit.
    """

    conv: Conv
    activation: ScaledActivation
    width: int
    padding: str = "SAME"
    pixel_blocks: bool = False

    @nn.compact
    def __call__(self, x: Images) -> Images:
        fit = self.padding == "SAME" and not any(side % 4 for side in x.shape[1:3])
        in_blocks = self.pixel_blocks and fit
        for i, width in enumerate((16, 32, 64, self.width)):
            stride = 2 if i in (0, 3) else 1
            x = self.activation(x) if i else x
            blocks = STEM_BLOCKS[i] if in_blocks else None
            name = f"stem_conv{i}"
            x = self.conv(width, (3, 3), (stride, stride), blocks=blocks, name=name)(x)
        return x


def nfnet(
    num_classes: int,
    options: Options,
    *,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    width_multiplier: float = 1.0,
    expansion: float = 0.5,
    group_width: int = 128,
    se_ratio: float = 0.5,
    attention: str = "se",
    head_multiplier: float = 2.0,
) -> Network:
    """NFNet: 3x3 stem, 1-3-3-1 bottlenecks with grouped 3x3, final 1x1 convolution.

    `widths` are multiplied by `width_multiplier`, the stem's (half of the first) is
    not; inside, a block has `expansion` times its width, rounded down to a multiple of
    `group_width`. The final convolution has `head_multiplier` times the last width.
    `attention`: see `channel_attention`.
    """
    conv, activation = options.conv(), options.scaled_activation()
    scale = channel_attention(attention, se_ratio)
    stem_width = widths[0] // 2
    widths = scaled_widths(widths, width_multiplier)

    def branch(place: Place) -> nn.Module:
        groups = group_count(place.width * expansion, group_width)
        inner = groups * group_width
        convs = bottleneck(inner, place.width, place.stride, 2, groups)
        return Branch(convs, conv, activation, scale)

    return preactivation_network(
        num_classes,
        options,
        Layout(stem_width, widths, depths, (1, 2, 2, 2)),
        NFNetStem(conv, activation, stem_width, options.padding),
        branch,
        functools.partial(pooled_projection, conv),
        activation=activation,
        final_conv=conv(int(head_multiplier * widths[-1]), (1, 1)),
    )


VARIANTS = {
    f"nfnet_f{n}{suffix}": Variant(
        nfnet,
        {
            "depths": tuple((n + 1) * depth for depth in DEPTHS),
            "widths": widths,
            "activation": "gelu",
            "drop_rate": drop_rate,
            "stochastic_depth": 0.25,
        },
        train_size,
        test_size,
        top1=None if suffix else top1,
        top5=None if suffix else top5,
        crop="resize_crop_32",
    )
    for suffix, widths in WIDTHS.items()
    for n, (train_size, test_size, drop_rate, top1, top5) in enumerate(
        SIZES_AND_ACCURACIES
    )
}

VARIANTS |= {
    f"dm_{name}": dataclasses.replace(
        variant,
        settings={
            **variant.settings,
            "activation": "gelu_erf",
            "gamma": "published",
            "var_eps": TIMM["var_eps"],
        },
    )
    for name, variant in VARIANTS.items()
    if name in {f"nfnet_f{n}" for n in range(7)}
}
"""Published networks in timm's form, for the published weights: erf in GELU, its eps.

Images are prepared as the publisher of the weights did; timm approximates that by 90 to
96 % of a smoothly resized square.
"""

LIGHT = TIMM | {
    "widths": WIDTHS[""],
    "activation": "silu",
    "expansion": 0.25,
    "group_width": 64,
}
VARIANTS |= {
    name: Variant(
        nfnet,
        LIGHT | {"depths": tuple(multiple * d for d in DEPTHS)} | own,
        train_size,
        test_size,
        crop=1.0,
    )
    for name, multiple, own, train_size, test_size in (
        ("nfnet_l0", 1, {"se_ratio": 0.25, "head_multiplier": 1.5}, 224, 288),
        ("eca_nfnet_l0", 1, {"attention": "eca", "head_multiplier": 1.5}, 224, 288),
        ("eca_nfnet_l1", 2, {"attention": "eca"}, 256, 320),
        ("eca_nfnet_l2", 3, {"attention": "eca"}, 320, 384),
    )
}
"""Lighter NFNets of timm, some with efficient channel attention."""

parse = VARIANTS.get
