"""The training loop."""

import contextlib
import functools
import math
import os
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from nfnet_jax.config import to_json
from nfnet_jax.data.dataset import Dataset
from nfnet_jax.models.flops import multiply_adds, training_multiply_adds
from nfnet_jax.optim.build import frozen_mask
from nfnet_jax.optim.tree import count
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.evaluation import make_tester
from nfnet_jax.training.facts import find_data_facts, write_data_facts
from nfnet_jax.training.metrics import MetricWriter
from nfnet_jax.training.plan import differentiated_examples
from nfnet_jax.training.pretrained import Pretrained, record_start, settle_model
from nfnet_jax.training.report import Reporter
from nfnet_jax.training.setup import Run, check_buildable, set_up
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.step import make_train_step
from nfnet_jax.training.workdir import (
    check_workdir,
    create_workdir,
    read_result,
    versions,
    write_json,
)


def train(
    config: ConfigDict,
    workdir: str,
    pretrained: Pretrained | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Trains as `config` says and returns what `workdir`/result.json then holds.

    A run that was stopped continues from its last checkpoint; a finished one is left
    as it is. `pretrained` are the weights that `config.model.weights` names; a run that
    continues does not need them. `dataset`, such as `data.arrays.from_arrays` makes, is
    taken instead of the one that `config.data` names, whose name becomes its name.

    Raises:
      UserError: a config that does not fit its data, model or weights, a work directory
        that holds another run, a loss that is not finite.
    """
    started = time.perf_counter()
    if dataset is not None:
        config = config.copy_and_resolve_references()
        config.data.name = dataset.name
    asked = config
    config = settle_model(config, workdir, pretrained)
    check_buildable(config, dataset)
    check_workdir(workdir, config)
    if (result := read_result(workdir)) is not None:
        print(f"{workdir} holds the finished run of this config; delete it to rerun")
        return result
    run = set_up(config, pretrained, find_data_facts(workdir), dataset)
    create_workdir(workdir, config)
    if pretrained:
        record_start(workdir, asked, config)
    write_data_facts(workdir, run.facts)
    print(run.description, flush=True)
    with Checkpoints(workdir) as checkpoints:
        state = run.state
        if checkpoints.latest_step is not None:
            state = checkpoints.restore(state)
            print(f"continuing from step {int(state.step)} of {run.plan.steps}")
        result = _run_steps(config, run, state, workdir, checkpoints)
    result["seconds"] = time.perf_counter() - started
    write_json(os.path.join(workdir, "result.json"), result)
    return result


def _run_steps(
    config: ConfigDict,
    run: Run,
    state: TrainState,
    workdir: str,
    checkpoints: Checkpoints,
) -> dict[str, Any]:
    plan, batch_size = run.plan, config.data.batch_size
    make_step = functools.partial(
        make_train_step, config, run.model, run.optimizer, run.train, run.facts
    )
    train_step, small_step = make_step(), make_step(config.train.small_size)
    test = make_tester(config, run)
    first_step = int(state.step)
    stopwatch = Stopwatch(batch_size)
    scores: dict[str, float] = {}
    with (
        contextlib.closing(run.train.feed(first_step)) as feed,
        MetricWriter(
            workdir,
            first_step=first_step,
            steps=plan.steps,
            tensorboard=config.log.tensorboard,
        ) as writer,
    ):
        reporter = Reporter(config, run, writer)
        for step in range(first_step + 1, plan.steps + 1):
            update = small_step if step <= plan.small_steps else train_step
            state, metrics = update(state, next(feed))
            reporter.add(step, metrics)
            last = step == plan.steps
            if step == first_step + 1:
                jax.block_until_ready(state)
                print(f"step {step} completed, the first of this process", flush=True)
                stopwatch.start(step)
            if step % config.log.every_steps == 0:
                reporter.end_interval()
            if step % plan.eval_every == 0 or last:
                reporter.flush()
                jax.block_until_ready(state)
                stopwatch.pause(step)
                scores = test(state)
                writer.write(step, {f"test/{k}": v for k, v in scores.items()})
                stopwatch.start(step)
            if step % plan.checkpoint_every == 0 or last:
                # Before saving, so that a diverged state never becomes a checkpoint.
                reporter.flush()
                checkpoints.save(state)
    macs = multiply_adds(run.model, run.facts.image_shape)
    return {
        "test_accuracy": scores["accuracy"],
        "test_accuracy_ema": scores["accuracy_ema"],
        "test_loss": scores["loss"],
        "steps": plan.steps,
        "images_per_second": stopwatch.images_per_second,
        "parameters": count(state.params),
        "multiply_adds": macs,
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


class Stopwatch:
    """Training rate without compilation and evaluation."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._steps, self._seconds = 0, 0.0
        self._since: tuple[int, float] | None = None

    def start(self, step: int) -> None:
        """From here on, time counts; `step` updates are complete."""
        self._since = (step, time.perf_counter())

    def pause(self, step: int) -> None:
        """Time until here counts; `step` updates are complete."""
        if self._since is not None:
            self._steps += step - self._since[0]
            self._seconds += time.perf_counter() - self._since[1]

    @property
    def images_per_second(self) -> float:
        """Mean rate, nan before the second step."""
        return (
            self._steps * self._batch_size / self._seconds if self._steps else math.nan
        )
