"""The training loop: from a config and a work directory to a result."""

import contextlib
import dataclasses
import os
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from nfnet_jax.data.dataset import Dataset
from nfnet_jax.training.checkpoint import Checkpoints, SaveTimes
from nfnet_jax.training.data_spec import (
    check_contents,
    find_data_spec,
    write_data_spec,
)
from nfnet_jax.training.distributed import ending_with_the_others
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.logging import (
    Diverged,
    MetricWriter,
    Progress,
    Reporter,
    Stopwatch,
    Trace,
    check_wandb,
    summarize,
    traced_steps,
)
from nfnet_jax.training.pretrained import Pretrained
from nfnet_jax.training.recovery import Interruption, Rewinds
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.trained import has_checkpoint, pin_model, record_origin
from nfnet_jax.training.workdir import (
    check_result,
    check_unlocked,
    check_workdir,
    create_workdir,
    is_moved,
    lock_workdir,
    read_result,
    versions,
    write_json,
    writing,
)
from nfnet_jax.utils.strict_json import strict

Scores = dict[str, float]


def train(
    config: ConfigDict,
    workdir: str,
    pretrained: Pretrained | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Trains as `config` says and returns what `workdir`/result.json then holds.

    A run that was stopped continues from its last checkpoint; a finished one is left
    as it is. `pretrained` are the weights that `config.model.weights` names; a run that
    continues does not need them. `dataset` is taken instead of the one that
    `config.data` names, which gets its name; `data.sources.arrays` makes one of arrays.

    Raises:
      UserError: a config that does not fit its data, model or weights, a work directory
        that holds another run, is in use or cannot be written, a loss that is not
        finite, checkpoints of which none is sound.
      Interrupted: SIGTERM or Ctrl-C came; the last step is saved.
    """
    started = time.perf_counter()
    if dataset is not None:
        config = config.copy_and_resolve_references()
        config.data.name = dataset.name
    asked, config = config, pin_model(config, workdir, pretrained)
    experiment = Experiment(config, dataset, pretrained)
    experiment.check_config()
    check_wandb(config)
    check_workdir(workdir, config)
    experiment = dataclasses.replace(experiment, given_spec=find_data_spec(workdir))
    result = read_result(workdir)
    if result is None:
        check_unlocked(workdir)
    contents = None
    if result is None or dataset is not None or is_moved(workdir, config):
        contents = check_contents(workdir, experiment.loaded_dataset)
    if result is not None:
        check_result(workdir, result)
        print(
            f"{workdir} holds the finished run of this config: choose another --workdir"
            " to train again"
        )
        return result
    # Built before the directory is made: values that do not fit raise here.
    built = experiment.abstract_state if has_checkpoint(workdir) else experiment.state
    del built
    with lock_workdir(workdir):
        # Again, because another run may have been here meanwhile.
        check_workdir(workdir, config)
        create_workdir(workdir, config)
        with writing(workdir):
            if pretrained:
                record_origin(workdir, asked, config)
            write_data_spec(workdir, experiment.data_spec, contents)
        result = _train(experiment, workdir)
        result["seconds"] = time.perf_counter() - started
        with writing(workdir):
            write_json(os.path.join(workdir, "result.json"), result)
    return result


@dataclasses.dataclass(frozen=True)
class _Session:
    """One process's part of a run: the experiment, and all that watches over it."""

    experiment: Experiment
    workdir: str
    checkpoints: Checkpoints
    writer: MetricWriter
    progress: Progress
    interruption: Interruption


def _train(experiment: Experiment, workdir: str) -> dict[str, Any]:
    """Trains from the last checkpoint, or the start; returns the result without
    `seconds`."""
    config, steps = experiment.config, experiment.timeline.steps
    print(summarize(experiment), flush=True)
    stopwatch = Stopwatch(config.data.batch_size, experiment.work, experiment.timeline)
    with (
        Interruption() as interruption,
        Checkpoints(
            workdir, config.checkpoint.keep, config.checkpoint.best_metric
        ) as checkpoints,
    ):
        if checkpoints.latest_step is not None:
            state = checkpoints.restore(experiment.abstract_state)
            print(f"continuing from step {int(state.step)} of {steps}")
        else:
            state = experiment.state
            if config.train.on_nan == "rewind":
                checkpoints.save(state)
        with (
            MetricWriter(workdir, config) as writer,
            Progress(stopwatch, first_step=int(state.step), steps=steps) as progress,
        ):
            session = _Session(
                experiment, workdir, checkpoints, writer, progress, interruption
            )
            # Innermost, because closing the outer contexts would block on the process
            # that died.
            with ending_with_the_others(workdir):
                state, scores = _train_with_rewinds(session, state)
                checkpoints.wait()
    reached = {
        "test_accuracy": scores["accuracy"],
        "test_accuracy_ema": scores["accuracy_ema"],
        "test_loss": scores["loss"],
        "images_per_second": stopwatch.images_per_second,
    }
    # Unknown values, such as the rate of a run of one step, become None.
    return strict(reached | experiment.facts | {"versions": versions()})


def _train_with_rewinds(
    session: _Session, state: TrainState
) -> tuple[TrainState, Scores]:
    """The last state and its scores, after as many rewinds as it takes."""
    experiment = session.experiment
    rewinds = Rewinds(session.checkpoints, experiment.timeline.steps)
    while True:
        # Read now: the first step takes the memory of the state.
        skipped = int(state.skipped)
        try:
            return _run_steps(session, state)
        except Diverged as divergence:
            if experiment.config.train.on_nan != "rewind":
                raise
            state = rewinds.back(divergence, skipped, experiment.abstract_state)


def _run_steps(session: _Session, state: TrainState) -> tuple[TrainState, Scores]:
    experiment, checkpoints = session.experiment, session.checkpoints
    config, timeline = experiment.config, experiment.timeline
    progress, stopwatch = session.progress, session.progress.stopwatch
    first_step = int(state.step)
    save_times = SaveTimes(config, timeline)
    reporter = Reporter(experiment, session.writer, progress)
    traced = traced_steps(first_step, timeline, config.log.profile_steps)
    scores: Scores = {}
    with (
        contextlib.closing(
            experiment.train_batches.iterate(int(state.batch_index))
        ) as host_batches,
        Trace(session.workdir, traced, stopwatch, progress.say) as trace,
    ):
        for step in range(first_step + 1, timeline.steps + 1):
            trace.before(step, state)
            small = step <= timeline.small_steps
            train_step = experiment.small_step if small else experiment.train_step
            state, metrics = train_step(state, next(host_batches))
            trace.after(step, state)
            reporter.add(step, metrics)
            checkpoints.check()
            last = step == timeline.steps
            if step == first_step + 1:
                jax.block_until_ready(state)
                progress.say(f"step {step} completed, the first of this process")
                stopwatch.start(step)
            elif progress.measuring:
                jax.block_until_ready(state)
                progress.measure(step)
            if step % config.log.every_steps == 0:
                reporter.end_interval()
            stop = session.interruption.after(step) and not last
            scores = {}
            if (step % timeline.eval_every == 0 and not stop) or last:
                reporter.flush()
                scores = _evaluate(session, state, step)
            if save_times.due(step) or stop or last or checkpoints.is_best(scores):
                # Before saving, so that a diverged state never becomes a checkpoint.
                reporter.flush()
                checkpoints.save(state, scores)
                save_times.saved()
            if stop:
                checkpoints.wait()
                raise session.interruption.stop(step, session.workdir)
    # A run interrupted right after its last step has not been evaluated yet.
    return state, scores or experiment.evaluate(state)


def _evaluate(session: _Session, state: TrainState, step: int) -> Scores:
    jax.block_until_ready(state)
    with session.progress.stopwatch.evaluating(step):
        scores = session.experiment.evaluate(state)
        session.writer.write(step, {f"test/{k}": v for k, v in scores.items()})
    session.progress.show_test(step, scores)
    return scores
