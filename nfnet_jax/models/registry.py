"""Models by name."""

import dataclasses
import fnmatch
import inspect
from typing import Any

from nfnet_jax.models import baselines, nf_air, nf_regnet, nf_resnet, nfnet
from nfnet_jax.models.network import Network, Spec
from nfnet_jax.models.variant import Options, Variant
from nfnet_jax.utils.errors import nearest

FAMILIES = (nf_resnet, nfnet, nf_regnet, nf_air, baselines)
"""Modules with a table `VARIANTS` and `parse(name)`, a Variant or None."""

EXAMPLES = (
    "nf_air_64",
    "nf_bottleneck_5_16",
    "nf_wrn_16_2",
    "nf_wrn_16_4",
    "nf_wrn_28_10",
    "nf_wrn_40_4",
    "nf_wrn_100_2",
    "nf_wrn_1000_2",
    *(f"{k}_wrn_{size}" for k in baselines.KINDS for size in ("16_4", "28_10", "40_4")),
)
"""Members of the families with free depth and width that `list_models` shows."""


def create_model(name: str, num_classes: int, **overrides: Any) -> Network:
    """Returns the network `name`: one of `list_models`, or of a family with free sizes.

    Families with free sizes are `nf_air_W`, `nf_bottleneck_N_W`, and `nf_wrn_D_K` with
    its baselines `bn_wrn_D_K`, `skipinit_wrn_D_K` and `fixup_wrn_D_K`.

    Args:
      name: a variant such as "nf_resnet50" or "nf_wrn_16_4".
      num_classes: number of logits, at least 1.
      **overrides: fields of `Options`, or keyword arguments of the family's builder.

    Returns:
      A Flax module: `init(key, images)`, `apply({"params": p}, images, train=False)`.

    Raises:
      ValueError: unknown name or override, or a value out of range.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes {num_classes}: expected at least 1")
    variant = find(name)
    options, own_settings = _split_settings(name, variant, overrides)
    network = variant.build(num_classes, options, **own_settings)
    return network.clone(spec=Spec(name, num_classes, tuple(overrides.items())))


def list_models(pattern: str = "*") -> list[str]:
    """Lists the names that match a shell-style pattern, such as "nf_resnet*"."""
    return sorted(fnmatch.filter(_names(), pattern))


def find(name: str) -> Variant:
    """Returns the variant called `name`.

    Raises:
      ValueError: unknown name.
    """
    for family in FAMILIES:
        if found := family.parse(name):
            return found
    raise ValueError(
        f"unknown model {name!r}, expected nf_wrn_DEPTH_WIDTH (or bn_, skipinit_, "
        "fixup_), nf_bottleneck_BLOCKS_WIDTH, nf_air_WIDTH or one of "
        "nfnet_jax.list_models()"
        f"{nearest(name, _names())}"
    )


def model_options(spec: Spec) -> Options:
    """Options that a network was made with: its variant's, then the overrides."""
    return _split_settings(spec.name, find(spec.name), dict(spec.overrides))[0]


def _split_settings(
    name: str, variant: Variant, overrides: dict[str, Any]
) -> tuple[Options, dict[str, Any]]:
    """Splits settings into options of all networks and keywords of the builder."""
    settings = {**variant.settings, **overrides}
    fields = {field.name for field in dataclasses.fields(Options)}
    own = set(inspect.signature(variant.build).parameters) - {"num_classes", "options"}
    for key in settings:
        if key not in fields | own:
            raise ValueError(
                f"model {name!r} has no option {key!r}, expected one of "
                f"{', '.join(sorted(fields | own))}{nearest(key, fields | own)}"
            )
    options = Options(**{k: v for k, v in settings.items() if k in fields})
    return options, {k: v for k, v in settings.items() if k in own}


def _names() -> list[str]:
    """Lists all names, baselines last: of equally near names the first is suggested."""
    return [*(name for family in FAMILIES for name in family.VARIANTS), *EXAMPLES]
