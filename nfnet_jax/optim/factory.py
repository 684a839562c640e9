"""The optimizer of a config: AGC, then SGD, AdamW or LAMB with weight decay."""

import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from nfnet_jax.optim.agc import adaptive_gradient_clipping
from nfnet_jax.optim.lamb import lamb
from nfnet_jax.optim.muon import muon
from nfnet_jax.optim.tree import Params, count, in_classifier, matches
from nfnet_jax.utils.errors import UserError


def _sgd(
    config: ConfigDict, rate: optax.Schedule, decayed: Params
) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, decayed),
        optax.sgd(rate, config.momentum or None, config.nesterov),
    )


def _adamw(
    config: ConfigDict, rate: optax.Schedule, decayed: Params
) -> optax.GradientTransformation:
    moments = {"b1": config.adam.b1, "b2": config.adam.b2, "eps": config.adam.eps}
    return optax.adamw(rate, **moments, weight_decay=config.weight_decay, mask=decayed)


def _lamb(
    config: ConfigDict, rate: optax.Schedule, decayed: Params
) -> optax.GradientTransformation:
    moments = {"b1": config.adam.b1, "b2": config.adam.b2, "eps": config.adam.eps}
    return lamb(rate, **moments, weight_decay=config.weight_decay, decayed=decayed)


def _muon(
    config: ConfigDict, rate: optax.Schedule, decayed: Params
) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, decayed),
        muon(
            rate,
            config.muon.adam_share,
            momentum=config.momentum,
            nesterov=config.nesterov,
        ),
    )


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "lamb": _lamb,
    "muon": _muon,
}
"""By `optim.name`; of `config.optim`, the learning rate, and where weights decay."""

USUAL = {
    "weight_decay": ("bias$", "gain$"),
    "agc": ("classifier", "skip_gain"),
}
"""What the config exempts from each treatment unless told otherwise. A network may have
no such parameters; any other pattern has to match some."""

SIGN_LIKE = ("adamw", "lamb", "muon")
"""Optimizers that divide a gradient by its own size, which undoes a clip of it."""


def build_optimizer(
    config: ConfigDict, params: Params, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Transformation for `config.optim` over parameters shaped like `params`.

    `schedule` gives the learning rate, a scalar, of each step.

    AGC comes first, because its threshold is about gradients. SGD and Muon add weight
    decay to the clipped gradient, so that it passes through momentum; AdamW and LAMB
    add it to the update. The rate of the body scales what results. Frozen parameters
    get updates of 0 and no state.

    Raises:
      UserError: a pattern matches no parameter, all parameters are frozen, or a
        treatment that is turned on covers none.
    """
    masks = group_masks(config, params)
    steps = []
    if config.agc.clipping:
        agc = adaptive_gradient_clipping(config.agc.clipping, config.agc.eps)
        steps.append(optax.masked(agc, masks["agc"]))
    rule = OPTIMIZERS[config.name](config, schedule, masks["weight_decay"])
    if config.freeze:
        rule = optax.masked(rule, jax.tree.map(operator.not_, masks["freeze"]))
    steps.append(rule)
    if config.body_rate != 1:
        steps.append(optax.masked(optax.scale(config.body_rate), masks["body_rate"]))
    if config.freeze:
        steps.append(optax.masked(optax.set_to_zero(), masks["freeze"]))
    return optax.chain(*steps)


def frozen_mask(config: ConfigDict, params: Params) -> Params:
    """True at the leaves that `config.optim.freeze` names; nothing may change them.

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


class Treatment(NamedTuple):
    """What covers all parameters but the frozen ones and those that patterns exempt.

    It is off where `strength`, the value of the key `strength_key`, is 0.
    """

    strength_key: str
    strength: float
    exclude_key: str
    exclude: Sequence[str]


def _treatments(config: ConfigDict) -> dict[str, Treatment]:
    return {
        "weight_decay": Treatment(
            "optim.weight_decay",
            config.weight_decay,
            "optim.weight_decay_exclude",
            config.weight_decay_exclude,
        ),
        "agc": Treatment(
            "optim.agc.clipping",
            config.agc.clipping,
            "optim.agc.exclude",
            config.agc.exclude,
        ),
    }


def group_masks(config: ConfigDict, params: Params) -> dict[str, Params]:
    """Which leaves each treatment covers.

    `weight_decay` and `agc`: all but their exclusions and the frozen ones; `freeze`:
    the frozen ones; `body_rate`: those outside of the classifier that are not frozen.

    Raises:
      UserError: as `build_optimizer`.
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
    return {"freeze": frozen} | masks


def _covers_nothing(own: Treatment, freeze: Sequence[str]) -> UserError:
    found = {own.exclude_key: own.exclude, "optim.freeze": freeze}
    named = [f"{key}={tuple(value)!r}" for key, value in found.items() if value]
    return UserError(
        f"{own.strength_key} is {own.strength:g}, but {' and '.join(named)} "
        f"{'leave' if named[1:] else 'leaves'} out every parameter, expected some to "
        f"be covered; {own.strength_key}=0 turns it off"
    )


def _is_found(params: Params, pattern: str) -> bool:
    return any(jax.tree.leaves(matches(params, pattern, "", (pattern,))))


def describe_groups(config: ConfigDict, params: Params) -> str:
    """A line per treatment: how many arrays and scalars it covers and what it skips."""
    masks = group_masks(config, params)
    total = f"{count(params):,}"

    def line(group: str, strength: float) -> str:
        covered = [
            leaf
            for leaf, hit in zip(
                jax.tree.leaves(params), jax.tree.leaves(masks[group]), strict=True
            )
            if hit and strength
        ]
        return f"{len(covered)} arrays, {count(covered):,} of {total} parameters"

    def present(patterns: Sequence[str]) -> str:
        found = [p for p in patterns if _is_found(params, p)]
        return ", ".join(found) or "none"

    frozen = " and what is frozen" if config.freeze else ""
    lines = [
        f"{group} {own.strength:g}: {line(group, own.strength)}; exempt: "
        f"{present(own.exclude)}{frozen}"
        for group, own in _treatments(config).items()
    ]
    if config.freeze:
        lines.append(f"frozen: {line('freeze', 1)}; by {', '.join(config.freeze)}")
    if config.body_rate != 1:
        lines.append(
            f"body_rate {config.body_rate:g}: {line('body_rate', 1)}; exempt: the "
            f"classifier{frozen}"
        )
    if config.agc.clipping and config.name in SIGN_LIKE:
        lines.append(
            f"warning: optim.agc.clipping is {config.agc.clipping:g} with optim.name "
            f"{config.name!r}, which divides gradients by their own size: clipping "
            "hardly changes its direction; 0 turns AGC off"
        )
    return "\n".join(lines)
