"""Baselines of normalizer-free networks: BatchNorm, SkipInit, Fixup.

ResNets with the widths and depths of NF-ResNets, for ImageNet (`bn_resnet50`) and wide
for CIFAR (`bn_wrn_16_4`). BatchNorm's running statistics are in `batch_stats`; no
other network of this project has that collection.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from nfnet_jax.layers.activations import ScaledActivation
from nfnet_jax.models.fixup import (
    FixupBlock,
    FixupBranch,
    FixupStem,
    fixup_projection,
)
from nfnet_jax.models.network import Head, Network
from nfnet_jax.models.nf_resnet import (
    DEPTHS,
    WIDTHS,
    Plan,
    imagenet_plan,
    preactivation_resnet,
    wide_plan,
)
from nfnet_jax.models.stage import make_stages
from nfnet_jax.models.variant import Options, Variant, cifar_variant
from nfnet_jax.ops.precision import at_least_float32

UNSCALED = {
    "alpha": 1.0,
    "beta": "none",
    "gamma": "none",
    "weight_standardization": False,
    "skip_gain": True,
}
"""Options of blocks x + skip_gain · branch(activation(x)) of plain convolutions."""


def bn(num_classes: int, options: Options, plan: Plan) -> Network:
    """ResNet v2: BatchNorm before every activation, convolutions without bias."""
    conv = options.conv(use_bias=False)
    activation = functools.partial(_normalize, options.scaled_activation())
    return preactivation_resnet(num_classes, options, plan, conv, activation=activation)


def skipinit(num_classes: int, options: Options, plan: Plan) -> Network:
    """ResNet v2 without BatchNorm; a zero-initialized scalar ends each branch.

    De, Smith 2020, "Batch normalization biases residual blocks towards the identity
    function in deep networks" (arXiv 2002.10444).
    """
    return preactivation_resnet(
        num_classes,
        options,
        plan,
        options.conv(),
        stem_conv=options.conv(use_bias=False),
        classifier_init=nn.initializers.zeros,
    )


def fixup(num_classes: int, options: Options, plan: Plan) -> Network:
    """ResNet v1 without BatchNorm, kept stable by its initialization (`models.fixup`).

    Raises:
      ValueError: an option that post-activation blocks have no place for.
    """
    for key, value in UNSCALED.items():
        if getattr(options, key) != value:
            raise ValueError(f"{key}: Fixup networks have only {key}={value!r}")
    activation = options.scaled_activation()
    conv = options.conv(use_bias=False)
    blocks = sum(plan.layout.depths)
    stages = make_stages(
        plan.layout,
        options,
        functools.partial(FixupBlock, activation=activation),
        lambda place: FixupBranch(plan.convs(place), conv, activation, blocks),
        functools.partial(fixup_projection, conv),
    )
    size, strides = ((7, 7), (2, 2)) if plan.imagenet_stem else ((3, 3), (1, 1))
    stem_conv = conv(plan.layout.stem_width, size, strides)
    identity, zeros = ScaledActivation("identity"), nn.initializers.zeros
    rate = options.drop_rate
    head = Head(num_classes, identity, rate, scalar_bias=True, kernel_init=zeros)
    stem = FixupStem(stem_conv, activation, plan.imagenet_stem, options.padding)
    return Network(stem, stages, head)


Kind = Callable[[int, Options, Plan], Network]
KINDS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "bn": (bn, UNSCALED | {"skip_gain": False}),
    "skipinit": (skipinit, UNSCALED),
    "fixup": (fixup, UNSCALED),
}
TRAITS: dict[str, dict[str, Any]] = {
    # BatchNorm stands before the activation and Fixup's biases before zero padding:
    # neither is a factor of a kernel.
    kind: {"foldable": kind == "skipinit", "follows_beta_schedule": False}
    for kind in KINDS
}


def imagenet_form(
    kind: Kind,
    num_classes: int,
    options: Options,
    *,
    depths: tuple[int, ...],
    widths: tuple[int, ...] = WIDTHS,
    width_multiplier: float = 1.0,
) -> Network:
    """Network of a kind for large images."""
    return kind(num_classes, options, imagenet_plan(depths, widths, width_multiplier))


def wide_form(
    kind: Kind, num_classes: int, options: Options, *, depth: int, width: int
) -> Network:
    """Wide network of a kind for 32x32 images; see `wide_plan`."""
    return kind(num_classes, options, wide_plan(depth, width))


VARIANTS = {
    f"{name}_resnet{layers}": Variant(
        functools.partial(imagenet_form, kind),
        settings | {"depths": depths, "stochastic_depth": 0.1},
        224,
        224,
        **TRAITS[name],
    )
    for name, (kind, settings) in KINDS.items()
    for layers, depths in DEPTHS.items()
}


def parse(name: str) -> Variant | None:
    """Returns the variant `name`, or None if no variant here has that name."""
    if match := re.fullmatch(rf"({'|'.join(KINDS)})_wrn_(\d+)_(\d+)", name):
        kind, settings = KINDS[match[1]]
        sizes = {"depth": int(match[2]), "width": int(match[3])}
        build = functools.partial(wide_form, kind)
        return cifar_variant(build, settings | sizes, **TRAITS[match[1]])
    return VARIANTS.get(name)


def _normalize(activation: ScaledActivation, x: jax.Array, *, train: bool) -> jax.Array:
    wide = x.astype(at_least_float32(x.dtype))
    y = nn.BatchNorm(not train, momentum=0.9)(wide)
    return activation(y.astype(x.dtype))
