"""Checkpoints of the training state in a work directory: saving, keeping, restoring.

A checkpoint is the directory `checkpoints/STEP`. Orbax gives it that name once all its
files are written; then it is sealed with a manifest (see `manifest`), and only then
are older ones removed. A sound checkpoint stays sound, whenever a run is killed.
"""

import contextlib
import functools
import glob
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from nfnet_jax.config.keys import BEST_METRICS
from nfnet_jax.training.checkpoint.manifest import (
    Unsound,
    is_sealed,
    read_facts,
    seal,
    unseal,
    verify,
)
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.timeline import Timeline
from nfnet_jax.utils.errors import UserError

if TYPE_CHECKING:
    from orbax.checkpoint import StandardCheckpointer

Scores = Mapping[str, float]
"""Results of an evaluation; empty for a checkpoint that was not evaluated."""

_UNFINISHED = ".orbax-checkpoint-tmp"


class SaveTimes:
    """Decides after which steps a checkpoint is due, by `config.checkpoint`.

    Minutes are counted by the monotonic clock, which nobody sets.
    """

    def __init__(self, config: ConfigDict, plan: Timeline):
        self._every = (plan.checkpoint_every, config.checkpoint.every_steps)
        self._minutes = config.checkpoint.every_minutes
        self._look_every = 1 if jax.process_count() == 1 else config.log.every_steps
        self._since = time.monotonic()

    def due(self, step: int) -> bool:
        """True if a checkpoint is due after `step`; the same on all processes."""
        by_step = any(every and step % every == 0 for every in self._every)
        if by_step or not self._minutes or step % self._look_every:
            return by_step
        over = time.monotonic() - self._since >= 60 * self._minutes
        return bool(_of_first_process(np.bool_(over)))

    def saved(self) -> None:
        """Restarts the count of minutes."""
        self._since = time.monotonic()


def best_step(scores: Mapping[int, Scores], metric: str | None) -> int | None:
    """The step with the largest accuracy or the least loss, the first of equals.

    None if `metric` is unset or no step has a number for it; nan, for which a manifest
    has None, is not a number.
    """
    if metric is None:
        return None
    values = {
        step: values[metric]
        for step, values in sorted(scores.items())
        if values.get(metric) is not None and not math.isnan(values[metric])
    }
    return BEST_METRICS[metric](values, key=values.__getitem__) if values else None


class Checkpoints:
    """The training states under `workdir`/checkpoints; a context manager.

    Saving is asynchronous; leaving the context waits for it. The last `keep` states are
    kept, and the best by `best_metric`. Reading writes nothing, not even the directory.
    """

    def __init__(self, workdir: str, keep: int = 2, best_metric: str | None = None):
        self._path = os.path.abspath(os.path.join(workdir, "checkpoints"))
        self._keep, self._best_metric = keep, best_metric
        self._pending: Future[None] | None = None
        self._opened = contextlib.ExitStack()

    @functools.cached_property
    def _writer(self) -> "StandardCheckpointer":
        from nfnet_jax.training.checkpoint.storage import open_writer

        return self._opened.enter_context(open_writer())

    @functools.cached_property
    def _background(self) -> ThreadPoolExecutor:
        return self._opened.enter_context(ThreadPoolExecutor(1, "checkpoint"))

    @functools.cached_property
    def _scores(self) -> dict[int, Scores]:
        """Scores of the sealed checkpoints, by step."""
        found = {}
        for step in self._steps():
            try:
                found[step] = read_facts(self._directory(step))["scores"]
            except Unsound:
                continue
        return found

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with self._opened:
            try:
                self.wait()
            except UserError:
                # Do not mask the exception that is already ending the run.
                if kind is None:
                    raise

    @property
    def latest_step(self) -> int | None:
        """Step of the last checkpoint that was completed, damaged or not."""
        sealed = (step for step in self._steps() if is_sealed(self._directory(step)))
        return next(sealed, None)

    def save(self, state: TrainState, scores: Scores | None = None) -> None:
        """Starts to write `state`, evaluated with `scores`, after the save before it.

        Does nothing if there is a checkpoint of that step.

        Raises:
          UserError: the save before it or this one failed.
        """
        self.wait()
        step = int(state.step)
        if step in self._scores:
            return
        try:
            self._remove_unfinished()
            self._writer.save(self._directory(step), state, force=True)
        except Exception as error:
            raise self._not_written(step, error) from error
        self._pending = self._background.submit(self._complete, step, scores or {})

    def check(self) -> None:
        """Raises UserError if a save that has ended failed; waits for nothing."""
        if self._pending and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the last save is complete. Raises UserError if it failed."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def is_best(self, scores: Scores) -> bool:
        """True if `scores` are better, by `best_metric`, than all checkpoints'."""
        if not scores or not self._best_metric:
            return False
        self.wait()
        scores_of = {**self._scores, sys.maxsize: scores}
        return best_step(scores_of, self._best_metric) == sys.maxsize

    def restore(self, like: Any, *, whole: bool = True) -> Any:
        """The newest sound state, with the shapes and on the devices of `like`.

        With `whole` false, `like` is a dictionary of some fields of the state.

        Raises:
          UserError: no checkpoint is sound, or it holds another model.
        """
        from nfnet_jax.training.checkpoint.storage import OtherTree, restore

        self.wait()
        directory = self._directory(self._newest_sound())
        try:
            return restore(directory, like, whole=whole)
        except OtherTree as difference:
            raise UserError(
                f"checkpoint {directory} is of another model: {difference}; expected "
                "the config and the classes that it was trained with"
            ) from difference
        # Orbax raises arbitrary exceptions of its storage layers.
        except Exception as error:
            raise UserError(
                f"checkpoint {directory} cannot be read ({_reason(error)})"
            ) from error

    def _newest_sound(self) -> int:
        """The last step whose files are as written, the same on all processes.

        Later steps are reported with their damage, and no longer count.
        """
        damage, found = [], -1
        # One process looks: another might read a file before it is there.
        for step in self._steps() if jax.process_index() == 0 else []:
            try:
                verify(self._directory(step), step=step)
                found = step
                break
            except Unsound as reason:
                damage.append(f"{step} {reason}")
        found = int(_of_first_process(np.int32(found)))
        reasons = "; ".join(damage)
        if found < 0:
            raise UserError(
                f"{self._path} holds no sound checkpoint ({reasons}): train again in "
                "another --workdir"
                if damage
                else f"{self._path} holds no complete checkpoint"
            )
        if damage:
            sys.stderr.write(f"checkpoint {reasons}: taking {found} instead\n")
        for step in [step for step in self._scores if step > found]:
            del self._scores[step]
        return found

    def _complete(self, step: int, scores: Scores) -> None:
        """Seals the checkpoint once Orbax has finished, then removes older ones."""
        first = jax.process_index() == 0
        try:
            self._writer.wait_until_finished()
            if first:
                seal(self._directory(step), step=step, scores=scores)
            self._scores[step] = scores
            best = best_step(self._scores, self._best_metric)
            kept = {*sorted(self._scores)[-self._keep :], best}
            for other in self._steps() if first else []:
                if other not in kept:
                    unseal(self._directory(other))
                    shutil.rmtree(self._directory(other))
            for other in self._scores.keys() - kept:
                del self._scores[other]
        except Exception as error:
            # On a full disk, its files take the room of the next save.
            self._remove_unfinished()
            raise self._not_written(step, error) from error

    def _remove_unfinished(self) -> None:
        """Removes the files of saves that failed or whose process was killed.

        Threads of a save that failed may go on writing for a while: files that appear
        for more than two seconds are left to the next start.
        """
        if jax.process_index() > 0:
            return
        pattern = os.path.join(glob.escape(self._path), f"*{_UNFINISHED}*")
        for directory in glob.glob(pattern):
            for _ in range(20):
                shutil.rmtree(directory, ignore_errors=True)
                if not os.path.exists(directory):
                    break
                time.sleep(0.1)

    def _not_written(self, step: int, error: Exception) -> UserError:
        last = max(self._scores, default=None)
        others = "there is no other" if last is None else f"{last} is the last"
        return UserError(
            f"cannot write checkpoint {self._directory(step)} ({_reason(error)}); "
            f"{others}"
        )

    def _directory(self, step: int) -> str:
        return os.path.join(self._path, str(step))

    def _steps(self) -> list[int]:
        """Steps of all checkpoints, sound or not, the newest first."""
        names = os.listdir(self._path) if os.path.isdir(self._path) else []
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _of_first_process(value: np.generic) -> Any:
    """The value that process 0 has, on all processes."""
    if jax.process_count() == 1:
        return value
    return multihost_utils.broadcast_one_to_all(value)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # At the end of a long line of Orbax's storage layer.
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
