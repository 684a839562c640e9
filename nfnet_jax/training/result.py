"""Content of result.json."""

from typing import Any

from ml_collections import ConfigDict

from nfnet_jax.config import to_json
from nfnet_jax.optim.tree import count
from nfnet_jax.training.logging import Stopwatch
from nfnet_jax.training.setup import Run
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.work import Work
from nfnet_jax.training.workdir import versions
from nfnet_jax.utils.strict_json import strict


def make_result(
    config: ConfigDict,
    run: Run,
    state: TrainState,
    scores: dict[str, float],
    work: Work,
    stopwatch: Stopwatch,
) -> dict[str, Any]:
    """Content of result.json, without `seconds`, of the run that ended with `state`.

    Unknown values, such as the rate of a run of one step, are None.
    """
    result = {
        "test_accuracy": scores["accuracy"],
        "test_accuracy_ema": scores["accuracy_ema"],
        "test_loss": scores["loss"],
        "steps": run.plan.steps,
        "images_per_second": stopwatch.images_per_second,
        "parameters": count(state.params),
        "multiply_adds": work.image,
        "train_flops": work.between(0, run.plan.steps),
        "dataset": config.data.name,
        "versions": versions(),
        "config": to_json(config),
    }
    return strict(result)
