"""Which checkpoints are kept: the last ones, and the best by a metric."""

import math
from collections.abc import Mapping

from nfnet_jax.config.keys import BEST_METRICS

Scores = Mapping[str, float]
"""Of an evaluation; empty where a checkpoint was not evaluated."""


def kept_steps(scores: Mapping[int, Scores], keep: int, metric: str | None) -> set[int]:
    """The last `keep` of the steps, and the best by `metric` where it is set."""
    best = best_step(scores, metric)
    return {*sorted(scores)[-keep:], *([] if best is None else [best])}


def best_step(scores: Mapping[int, Scores], metric: str | None) -> int | None:
    """The step with the largest accuracy or the least loss, the first of equals.

    None where `metric` is unset or no step has a number for it; nan is none, and a
    manifest has None for it.
    """
    if metric is None:
        return None
    values = {
        step: values[metric]
        for step, values in sorted(scores.items())
        if values.get(metric) is not None and not math.isnan(values[metric])
    }
    if not values:
        return None
    return BEST_METRICS[metric](values, key=values.__getitem__)
