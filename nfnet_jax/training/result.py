"""Content of result.json."""

from typing import Any

from nfnet_jax.config import to_json
from nfnet_jax.optim.tree import count
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.logging import Stopwatch
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.workdir import versions
from nfnet_jax.utils.strict_json import strict


def make_result(
    experiment: Experiment,
    state: TrainState,
    scores: dict[str, float],
    stopwatch: Stopwatch,
) -> dict[str, Any]:
    """Content of result.json, without `seconds`, of the run that ended with `state`.

    Unknown values, such as the rate of a run of one step, are None.
    """
    config, steps = experiment.config, experiment.timeline.steps
    result = {
        "test_accuracy": scores["accuracy"],
        "test_accuracy_ema": scores["accuracy_ema"],
        "test_loss": scores["loss"],
        "steps": steps,
        "images_per_second": stopwatch.images_per_second,
        "parameters": count(state.params),
        "multiply_adds": experiment.work.image,
        "train_flops": experiment.work.between(0, steps),
        "dataset": config.data.name,
        "versions": versions(),
        "config": to_json(config),
    }
    return strict(result)
