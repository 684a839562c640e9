"""Parameter groups: the leaves that decay, that AGC clips, that are frozen."""

import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from nfnet_jax.optim.tree import Params, count, in_classifier, matches
from nfnet_jax.utils.errors import UserError

USUAL = {
    "weight_decay": ("bias$", "gain$"),
    "agc": ("classifier", "skip_gain"),
}
"""Default exemptions of the config. A network may have no such parameters; any other
pattern has to match some."""

SIGN_LIKE = ("adamw", "lamb", "muon")
"""Optimizers that divide a gradient by its own size, which undoes a clip of it."""


class ParameterGroups(NamedTuple):
    """Masks over the parameters, trees of bools: True at the leaves of the group.

    `weight_decay` and `agc`: all but their exclusions and the frozen ones; `freeze`:
    parameters that nothing may change; `body_rate`: those outside of the classifier
    that are not frozen.
    """

    freeze: Params
    weight_decay: Params
    agc: Params
    body_rate: Params


class _Treatment(NamedTuple):
    """Weight decay or AGC: off where `strength`, the value of `strength_key`, is 0."""

    strength_key: str
    strength: float
    exclude_key: str
    exclude: Sequence[str]


def _treatments(config: ConfigDict) -> dict[str, _Treatment]:
    decay = config.weight_decay, "optim.weight_decay_exclude"
    clipping = config.agc.clipping, "optim.agc.exclude"
    return {
        "weight_decay": _Treatment(
            "optim.weight_decay", *decay, config.weight_decay_exclude
        ),
        "agc": _Treatment("optim.agc.clipping", *clipping, config.agc.exclude),
    }


def parameter_groups(config: ConfigDict, params: Params) -> ParameterGroups:
    """Sorts parameters into the groups of `config.optim`.

    Looks at the names of `params` alone: call it once, outside of traced code.

    Raises:
      UserError: a pattern matches no parameter, all parameters are frozen, or a
        treatment that is turned on covers none.
    """
    frozen = frozen_mask(config, params)
    exempt = {
        group: matches(params, own.exclude, own.exclude_key, USUAL[group])
        for group, own in _treatments(config).items()
    }
    exempt["body_rate"] = in_classifier(params)
    masks = {
        group: jax.tree.map(lambda *out: not any(out), hits, frozen)
        for group, hits in exempt.items()
    }
    for group, own in _treatments(config).items():
        if own.strength and not any(jax.tree.leaves(masks[group])):
            raise _covers_nothing(own, config.freeze)
    return ParameterGroups(freeze=frozen, **masks)


def frozen_mask(config: ConfigDict, params: Params) -> Params:
    """Mask of the parameters that `config.optim.freeze` matches.

    Raises:
      UserError: a pattern matches no parameter, or all parameters are frozen.
    """
    frozen = matches(params, config.freeze, "optim.freeze")
    if all(jax.tree.leaves(frozen)):
        raise UserError(
            f"optim.freeze: {', '.join(map(repr, config.freeze))} freezes all "
            f"{count(params):,} parameters, expected some to train"
        )
    return frozen


def inverse(mask: Params) -> Params:
    """Mask of all other leaves."""
    return jax.tree.map(operator.not_, mask)


def _covers_nothing(own: _Treatment, freeze: Sequence[str]) -> UserError:
    found = {own.exclude_key: own.exclude, "optim.freeze": freeze}
    named = [f"{key}={tuple(value)!r}" for key, value in found.items() if value]
    return UserError(
        f"{own.strength_key} is {own.strength:g}, but {' and '.join(named)} "
        f"{'leave' if named[1:] else 'leaves'} out every parameter, expected some to "
        f"be covered; {own.strength_key}=0 turns it off"
    )


def describe_groups(config: ConfigDict, params: Params) -> str:
    """Describes each group in a line: arrays and scalars covered, patterns exempt."""
    groups = parameter_groups(config, params)
    total = f"{count(params):,}"

    def covers(mask: Params, strength: float = 1) -> str:
        leaves = zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True)
        covered = [leaf for leaf, hit in leaves if hit and strength]
        return f"{len(covered)} arrays, {count(covered):,} of {total} parameters"

    def is_found(pattern: str) -> bool:
        return any(jax.tree.leaves(matches(params, pattern, "", (pattern,))))

    frozen = " and what is frozen" if config.freeze else ""
    lines = [
        f"{group} {own.strength:g}: {covers(getattr(groups, group), own.strength)}; "
        f"exempt: {', '.join(filter(is_found, own.exclude)) or 'none'}{frozen}"
        for group, own in _treatments(config).items()
    ]
    if config.freeze:
        lines.append(f"frozen: {covers(groups.freeze)}; by {', '.join(config.freeze)}")
    if config.body_rate != 1:
        lines.append(
            f"body_rate {config.body_rate:g}: {covers(groups.body_rate)}; exempt: the "
            f"classifier{frozen}"
        )
    if config.agc.clipping and config.name in SIGN_LIKE:
        lines.append(
            f"warning: optim.agc.clipping is {config.agc.clipping:g} with optim.name "
            f"{config.name!r}, which divides gradients by their own size: clipping "
            "hardly changes its direction; 0 turns AGC off"
        )
    return "\n".join(lines)
