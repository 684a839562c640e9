"""NF-RegNets B0 to B8: grouped bottlenecks that are wider inside than outside.

Brock, De, Smith 2021, "Characterizing signal propagation to close the performance gap
in unnormalized ResNets" (arXiv 2101.08692), section 5.3. Every stage has stride 2 and
average-pools before its projection, as in NFNets.
"""

import functools

import flax.linen as nn

from nfnet_jax.models.blocks import (
    Branch,
    bottleneck,
    channel_attention,
    group_count,
    pooled_projection,
    round_channels,
)
from nfnet_jax.models.network import Network, preactivation_network
from nfnet_jax.models.stage import Layout, Place, scaled_widths
from nfnet_jax.models.variant import TIMM, Options, Variant


def nf_regnet(
    num_classes: int,
    options: Options,
    *,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    width_multiplier: float = 0.75,
    expansion: float = 2.25,
    group_width: int = 8,
    se_ratio: float = 0.5,
    attention: str = "se",
    divisor: int | None = None,
) -> Network:
    """NF-RegNet: 3x3 stem, 1-3-1 blocks with grouped 3x3, final 1x1 convolution.

    Inside, a block has `expansion` times its input width (once in the very first),
    rounded down to a multiple of `group_width`. Other widths are rounded down, or to
    multiples of `divisor`. `attention`: see `channel_attention`.
    """
    conv, activation = options.conv(), options.scaled_activation()
    head_width = round_channels(1280 * widths[-1] // 440 * width_multiplier, divisor)
    widths = scaled_widths(widths, width_multiplier, divisor)
    scale = channel_attention(attention, se_ratio, divisor)

    def branch(place: Place) -> nn.Module:
        inner = place.width_in * (expansion if place.index else 1)
        groups = group_count(round_channels(inner, divisor), group_width)
        inner = groups * group_width
        convs = bottleneck(inner, place.width, place.stride, groups=groups)
        return Branch(convs, conv, activation, scale, attention_inside=True)

    return preactivation_network(
        num_classes,
        options,
        Layout(widths[0], widths, depths, (2,) * len(widths)),
        conv(widths[0], (3, 3), (2, 2)),
        branch,
        functools.partial(pooled_projection, conv),
        activation=activation,
        final_conv=conv(head_width, (1, 1)),
        classifier_init=nn.initializers.zeros,
    )


TABLE = {
    # widths, depths, train size, test size, dropout
    "b0": ((48, 104, 208, 440), (1, 3, 6, 6), 192, 224, 0.2),
    "b1": ((48, 104, 208, 440), (2, 4, 7, 7), 224, 256, 0.2),
    "b2": ((56, 112, 232, 488), (2, 4, 8, 8), 240, 272, 0.3),
    "b3": ((56, 128, 248, 528), (2, 5, 9, 9), 288, 320, 0.3),
    "b4": ((64, 144, 288, 616), (2, 6, 11, 11), 320, 384, 0.4),
    "b5": ((80, 168, 336, 704), (3, 7, 14, 14), 384, 456, 0.4),
    "b6": ((88, 184, 376, 792), (3, 8, 16, 16), 448, 528, 0.5),
    "b7": ((96, 208, 416, 880), (4, 10, 19, 19), 512, 600, 0.5),
    "b8": ((104, 232, 456, 968), (4, 11, 22, 22), 600, 672, 0.5),
}

VARIANTS = {
    f"nf_regnet_{level}": Variant(
        nf_regnet,
        {
            "depths": depths,
            "widths": widths,
            "activation": "silu",
            "drop_rate": drop_rate,
            "stochastic_depth": 0.1,
        },
        train_size,
        test_size,
    )
    for level, (widths, depths, train_size, test_size, drop_rate) in TABLE.items()
}
_widths, _depths, *_ = TABLE["b1"]
VARIANTS["timm_nf_regnet_b1"] = Variant(
    nf_regnet,
    TIMM | {"depths": _depths, "widths": _widths, "activation": "silu", "divisor": 8},
    256,
    288,
    crop=0.9,
)

parse = VARIANTS.get
