"""The training loop."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from nfnet_jax.data.dataset import Dataset
from nfnet_jax.training.checkpoint.manager import Checkpoints
from nfnet_jax.training.checkpoint.rewind import Rewinds
from nfnet_jax.training.checkpoint.save_times import SaveTimes
from nfnet_jax.training.data_spec import check_data, find_data_facts, write_data_facts
from nfnet_jax.training.distributed import ending_with_the_others
from nfnet_jax.training.evaluation import make_tester
from nfnet_jax.training.finetune import Pretrained, record_start, settle_model
from nfnet_jax.training.interruption import Interruption
from nfnet_jax.training.lock import check_free, hold
from nfnet_jax.training.logging.metrics import MetricWriter
from nfnet_jax.training.logging.profiler import Trace, traced_steps
from nfnet_jax.training.logging.progress import Progress
from nfnet_jax.training.logging.reporter import Diverged, Reporter
from nfnet_jax.training.logging.stopwatch import Stopwatch
from nfnet_jax.training.logging.summary import summarize
from nfnet_jax.training.logging.wandb import check_wandb
from nfnet_jax.training.result import check_result, make_result
from nfnet_jax.training.setup import Run, check_buildable, load_config_dataset, set_up
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.step import make_train_step
from nfnet_jax.training.work import count_work
from nfnet_jax.training.workdir import (
    check_workdir,
    create_workdir,
    is_moved,
    read_result,
    write_json,
    writing,
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
        that holds another run, is in use or cannot be written, a loss that is not
        finite, checkpoints of which none is sound.
      Interrupted: SIGTERM or Ctrl-C came; the last step is saved.
    """
    started = time.perf_counter()
    if dataset is not None:
        config = config.copy_and_resolve_references()
        config.data.name = dataset.name
    asked = config
    config = settle_model(config, workdir, pretrained)
    check_buildable(config, dataset)
    check_wandb(config)
    check_workdir(workdir, config)
    result = read_result(workdir)
    if result is None:
        check_free(workdir)
    if result is None or dataset is not None or is_moved(workdir, config):
        dataset = dataset or load_config_dataset(config)
        holds = check_data(workdir, dataset)
    if result is not None:
        check_result(workdir, result)
        print(
            f"{workdir} holds the finished run of this config: choose another --workdir"
            " to train again"
        )
        return result
    run = set_up(config, pretrained, find_data_facts(workdir), dataset)
    with hold(workdir):
        # Again, because another run may have been here meanwhile.
        check_workdir(workdir, config)
        create_workdir(workdir, config)
        with writing(workdir):
            if pretrained:
                record_start(workdir, asked, config)
            write_data_facts(workdir, run.facts, holds)
        result = _train(config, run, workdir)
        result["seconds"] = time.perf_counter() - started
        with writing(workdir):
            write_json(os.path.join(workdir, "result.json"), result)
    return result


@dataclasses.dataclass(frozen=True)
class _Session:
    """What the loop works with."""

    config: ConfigDict
    run: Run
    workdir: str
    checkpoints: Checkpoints
    writer: MetricWriter
    progress: Progress
    interruption: Interruption
    steps: tuple[Callable, Callable]
    test: Callable[[TrainState], dict[str, float]]


def _train(config: ConfigDict, run: Run, workdir: str) -> dict[str, Any]:
    """From the last checkpoint, or the start, to the result."""
    keep, best = config.checkpoint.keep, config.checkpoint.best_metric
    work = count_work(config, run)
    print(summarize(config, run, work), flush=True)
    stopwatch = Stopwatch(config.data.batch_size, work, run.plan)
    with (
        Interruption() as interruption,
        Checkpoints(workdir, keep, best) as checkpoints,
    ):
        state = run.state
        if checkpoints.latest_step is not None:
            state = checkpoints.restore(state)
            print(f"continuing from step {int(state.step)} of {run.plan.steps}")
        elif config.train.on_nan == "rewind":
            checkpoints.save(state)
        first_step = int(state.step)
        with (
            MetricWriter(workdir, config) as writer,
            Progress(stopwatch, first_step=first_step, steps=run.plan.steps) as bar,
        ):
            session = _Session(
                config,
                run,
                workdir,
                checkpoints,
                writer,
                bar,
                interruption,
                _train_steps(config, run),
                make_tester(config, run),
            )
            # Here, because leaving the contexts would wait for who is gone.
            with ending_with_the_others(workdir):
                state, scores = _to_the_end(session, state)
    return make_result(config, run, state, scores, work, stopwatch)


def _train_steps(config: ConfigDict, run: Run) -> tuple[Callable, Callable]:
    """On images of `train.small_size`, and of the data's size."""
    make = functools.partial(
        make_train_step, config, run.model, run.optimizer, run.train, run.facts
    )
    return make(config.train.small_size), make()


def _to_the_end(
    session: _Session, state: TrainState
) -> tuple[TrainState, dict[str, float]]:
    """The last state and its scores, after as many rewinds as it takes."""
    rewinds = Rewinds(session.checkpoints, session.run.plan.steps)
    while True:
        skipped = int(state.skipped)
        try:
            return _run_steps(session, state)
        except Diverged as divergence:
            if session.config.train.on_nan != "rewind":
                raise
            state = rewinds.back(divergence, skipped, session.run.state)


def _run_steps(
    session: _Session, state: TrainState
) -> tuple[TrainState, dict[str, float]]:
    config, run, plan = session.config, session.run, session.run.plan
    checkpoints, progress = session.checkpoints, session.progress
    small_step, full_step = session.steps
    first_step = int(state.step)
    times = SaveTimes(config, plan)
    reporter = Reporter(config, run, session.writer, progress)
    traced = traced_steps(first_step, plan, config.log.profile_steps)
    scores: dict[str, float] = {}
    with (
        contextlib.closing(
            run.train.iterate(first_step + int(state.skipped))
        ) as host_batches,
        Trace(session.workdir, traced, progress.stopwatch, progress.say) as trace,
    ):
        for step in range(first_step + 1, plan.steps + 1):
            trace.before(step, state)
            update = small_step if step <= plan.small_steps else full_step
            state, metrics = update(state, next(host_batches))
            trace.after(step, state)
            reporter.add(step, metrics)
            checkpoints.check()
            last = step == plan.steps
            if step == first_step + 1:
                jax.block_until_ready(state)
                progress.say(f"step {step} completed, the first of this process")
                progress.stopwatch.start(step)
            elif progress.measuring:
                jax.block_until_ready(state)
                progress.measure(step)
            if step % config.log.every_steps == 0:
                reporter.end_interval()
            stop = session.interruption.after(step) and not last
            scores = {}
            if (step % plan.eval_every == 0 and not stop) or last:
                reporter.flush()
                scores = _evaluate(session, state, step)
            if times.due(step) or stop or last or checkpoints.is_best(scores):
                # Before saving, so that a diverged state never becomes a checkpoint.
                reporter.flush()
                checkpoints.save(state, scores)
                times.saved()
            if stop:
                checkpoints.wait()
                raise session.interruption.stop(step, session.workdir)
    # What stopped after its last step has the scores left to do.
    return state, scores or session.test(state)


def _evaluate(session: _Session, state: TrainState, step: int) -> dict[str, float]:
    jax.block_until_ready(state)
    with session.progress.stopwatch.evaluating(step):
        scores = session.test(state)
        session.writer.write(step, {f"test/{k}": v for k, v in scores.items()})
    session.progress.show_test(step, scores)
    return scores
