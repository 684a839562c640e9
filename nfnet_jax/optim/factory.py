"""Optimizer of a config: AGC, then SGD, AdamW, LAMB or Muon with weight decay.

A further optimizer is a function here (`OPTIMIZERS`), with its name in `config.keys`.
"""

from collections.abc import Callable

import optax
from ml_collections import ConfigDict

from nfnet_jax.optim.agc import adaptive_gradient_clipping
from nfnet_jax.optim.groups import ParameterGroups, inverse
from nfnet_jax.optim.rules import lamb, muon
from nfnet_jax.optim.tree import Params


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
    return optax.adamw(
        rate, **config.adam, weight_decay=config.weight_decay, mask=decayed
    )


def _lamb(
    config: ConfigDict, rate: optax.Schedule, decayed: Params
) -> optax.GradientTransformation:
    return lamb(rate, **config.adam, weight_decay=config.weight_decay, decayed=decayed)


def _muon(
    config: ConfigDict, rate: optax.Schedule, decayed: Params
) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, decayed),
        muon(rate, config.muon.adam_share, config.momentum, config.nesterov),
    )


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "lamb": _lamb,
    "muon": _muon,
}
"""Functions (`config.optim`, learning rate, mask of weight decay), by `optim.name`."""


def build_optimizer(
    config: ConfigDict, schedule: optax.Schedule, groups: ParameterGroups
) -> optax.GradientTransformation:
    """Builds the transformation of `config.optim` for parameters in `groups`.

    `schedule` gives the learning rate, a scalar, of each step.

    AGC comes first, because its threshold is about gradients. SGD and Muon add weight
    decay to the clipped gradient, so that it passes through momentum; AdamW and LAMB
    add it to the update. The rate of the body scales the result. Frozen parameters get
    updates of 0 and no state.
    """
    steps = []
    if config.agc.clipping:
        agc = adaptive_gradient_clipping(config.agc.clipping, config.agc.eps)
        steps.append(optax.masked(agc, groups.agc))
    rule = OPTIMIZERS[config.name](config, schedule, groups.weight_decay)
    if config.freeze:
        rule = optax.masked(rule, inverse(groups.freeze))
    steps.append(rule)
    if config.body_rate != 1:
        steps.append(optax.masked(optax.scale(config.body_rate), groups.body_rate))
    if config.freeze:
        steps.append(optax.masked(optax.set_to_zero(), groups.freeze))
    return optax.chain(*steps)
