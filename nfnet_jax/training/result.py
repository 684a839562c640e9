"""What a finished run has to tell."""

from typing import Any

from ml_collections import ConfigDict

from nfnet_jax.config import to_json
from nfnet_jax.models.flops import multiply_adds, training_multiply_adds
from nfnet_jax.optim.build import frozen_mask
from nfnet_jax.optim.tree import count
from nfnet_jax.training.plan import differentiated_examples
from nfnet_jax.training.setup import Run
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.stopwatch import Stopwatch
from nfnet_jax.training.workdir import versions


def make_result(
    config: ConfigDict,
    run: Run,
    state: TrainState,
    scores: dict[str, float],
    stopwatch: Stopwatch,
) -> dict[str, Any]:
    """result.json of the run that ended with `state`, but for its `seconds`."""
    return {
        "test_accuracy": scores["accuracy"],
        "test_accuracy_ema": scores["accuracy_ema"],
        "test_loss": scores["loss"],
        "steps": run.plan.steps,
        "images_per_second": stopwatch.images_per_second,
        "parameters": count(state.params),
        "multiply_adds": multiply_adds(run.model, run.facts.image_shape),
        "train_flops": _train_flops(config, run, state),
        "dataset": config.data.name,
        "versions": versions(),
        "config": to_json(config),
    }


def _train_flops(config: ConfigDict, run: Run, state: TrainState) -> int:
    """Two for each multiply-add of every image seen, forward and backward."""
    frozen = frozen_mask(config.optim, state.params)
    height, width, channels = run.facts.image_shape
    small = config.train.small_size
    flops = 0
    for steps, shape in (
        (run.plan.small_steps, (small, small, channels)),
        (run.plan.steps - run.plan.small_steps, (height, width, channels)),
    ):
        if steps:
            macs = training_multiply_adds(run.model, shape, frozen)
            flops += 2 * macs * steps * differentiated_examples(config)
    return flops
