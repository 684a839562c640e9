"""The optimizer of a config: AGC, then weight decay, then Nesterov momentum."""

import operator

import jax
import optax
from ml_collections import ConfigDict

from nfnet_jax.errors import UserError
from nfnet_jax.optim.agc import adaptive_gradient_clipping
from nfnet_jax.optim.muon import muon
from nfnet_jax.optim.tree import Params, count, in_classifier, matches


def build_optimizer(
    config: ConfigDict, params: Params, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Transformation for `config.optim` over parameters shaped like `params`.

    AGC comes first, because its threshold is about gradients; weight decay is added to
    the clipped gradient and so passes through momentum and the learning rate. The rate
    of the body scales what results. Frozen parameters get updates of 0.

    Raises:
      UserError: a pattern matches no parameter, or all parameters are frozen.
    """
    masks = group_masks(config, params)
    frozen = masks["freeze"]
    steps = []
    if config.agc.clipping:
        agc = adaptive_gradient_clipping(config.agc.clipping, config.agc.eps)
        steps.append(optax.masked(agc, masks["agc"]))
    steps.append(optax.add_decayed_weights(config.weight_decay, masks["weight_decay"]))
    descent = _descent(config, schedule)
    if config.freeze:
        # Without momentum for the frozen ones, which would only take memory.
        descent = optax.masked(descent, jax.tree.map(operator.not_, frozen))
    steps.append(descent)
    if config.body_rate != 1:
        steps.append(optax.masked(optax.scale(config.body_rate), masks["body_rate"]))
    if config.freeze:
        steps.append(optax.masked(optax.set_to_zero(), frozen))
    return optax.chain(*steps)


def _descent(
    config: ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The optimizer proper, `config.optim.name`."""
    if config.name == "muon":
        return muon(
            schedule,
            config.muon.adam_share,
            momentum=config.momentum,
            nesterov=config.nesterov,
        )
    return optax.sgd(schedule, config.momentum or None, config.nesterov)


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


def group_masks(config: ConfigDict, params: Params) -> dict[str, Params]:
    """Which leaves each treatment covers.

    `weight_decay` and `agc`: all but their exclusions and the frozen ones; `freeze`:
    the frozen ones; `body_rate`: those outside of the classifier that are not frozen.
    """
    frozen = frozen_mask(config, params)
    exempt = {
        "weight_decay": matches(
            params, config.weight_decay_exclude, "optim.weight_decay_exclude"
        ),
        "agc": matches(params, config.agc.exclude, "optim.agc.exclude"),
        "body_rate": in_classifier(params),
    }
    return {"freeze": frozen} | {
        group: jax.tree.map(lambda *out: not any(out), hits, frozen)
        for group, hits in exempt.items()
    }


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

    frozen = " and what is frozen" if config.freeze else ""
    lines = [
        f"{group} {strength:g}: {line(group, strength)}; exempt: "
        f"{', '.join(excluded) or 'none'}{frozen}"
        for group, strength, excluded in (
            ("weight_decay", config.weight_decay, config.weight_decay_exclude),
            ("agc", config.agc.clipping, config.agc.exclude),
        )
    ]
    if config.freeze:
        lines.append(f"frozen: {line('freeze', 1)}; by {', '.join(config.freeze)}")
    if config.body_rate != 1:
        lines.append(
            f"body_rate {config.body_rate:g}: {line('body_rate', 1)}; exempt: the "
            f"classifier{frozen}"
        )
    return "\n".join(lines)
