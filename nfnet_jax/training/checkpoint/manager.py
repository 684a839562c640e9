"""Checkpoints of the training state in a work directory, by Orbax.

A checkpoint is the directory `checkpoints/STEP`. Orbax gives it that name once all its
files are written; then it is sealed with a manifest (see `integrity`), and only then
are older ones removed. So what was whole stays whole, whenever a run is killed.
"""

import functools
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nfnet_jax.training.checkpoint.manifest import (
    Unsound,
    is_sealed,
    read_facts,
    seal,
    unseal,
    verify,
)
from nfnet_jax.training.checkpoint.retention import Scores, best_step, kept_steps
from nfnet_jax.training.state import TrainState
from nfnet_jax.utils.errors import UserError

if TYPE_CHECKING:
    from nfnet_jax.training.checkpoint.storage import Storage

_UNFINISHED = ".orbax-checkpoint-tmp"


class Checkpoints:
    """The training states under `workdir`/checkpoints; a context manager.

    Saving is asynchronous; leaving the context waits for it. The last `keep` states are
    kept, and the best by `best_metric` (see `retention`). Reading writes nothing, not
    even the directory.
    """

    def __init__(self, workdir: str, keep: int = 2, best_metric: str | None = None):
        self._path = os.path.abspath(os.path.join(workdir, "checkpoints"))
        self._keep, self._best_metric = keep, best_metric
        self._pending: Future[None] | None = None

    @functools.cached_property
    def _storage(self) -> "Storage":
        from nfnet_jax.training.checkpoint.storage import Storage

        return Storage()

    @functools.cached_property
    def _background(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "checkpoint")

    @functools.cached_property
    def _scores(self) -> dict[int, Scores]:
        """Of the sealed checkpoints."""
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
        try:
            self.wait()
        except UserError:
            # What ends the run already is what is told.
            if kind is None:
                raise
        finally:
            if "_storage" in vars(self):
                self._storage.close()
            if "_background" in vars(self):
                self._background.shutdown()

    @property
    def latest_step(self) -> int | None:
        """Step of the last checkpoint that was completed, damaged or not."""
        sealed = (step for step in self._steps() if is_sealed(self._directory(step)))
        return next(sealed, None)

    def save(self, state: TrainState, scores: Scores | None = None) -> None:
        """Starts to write `state`, evaluated with `scores`, unless there is one of its
        step already; waits for the one before.

        Raises:
          UserError: the one before or this one cannot be written.
        """
        self.wait()
        step = int(state.step)
        if step in self._scores:
            return
        try:
            self._remove_unfinished()
            self._storage.save(self._directory(step), state)
        except Exception as error:
            raise self._not_written(step, error) from error
        self._pending = self._background.submit(self._complete, step, scores or {})

    def check(self) -> None:
        """Raises UserError if a save that has ended failed; waits for nothing."""
        if self._pending and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Until what was saved is complete. Raises UserError if it cannot be."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def is_best(self, scores: Scores) -> bool:
        """Whether no complete checkpoint is as good as `scores`, by `best_metric`."""
        if not scores or not self._best_metric:
            return False
        self.wait()
        scores_of = {**self._scores, sys.maxsize: scores}
        return best_step(scores_of, self._best_metric) == sys.maxsize

    def restore(self, like: TrainState) -> TrainState:
        """The newest sound state, with the shapes and on the devices of `like`.

        Raises:
          UserError: none is sound, or it is of another model.
        """
        return self._restore(lambda path: self._storage.restore(path, like), like, True)

    def restore_some(self, shapes: dict[str, Any]) -> dict[str, Any]:
        """Some fields of the newest sound state, of these shapes, on the first device.

        Raises:
          UserError: there is no checkpoint, none is sound, or it is of another model.
        """
        from nfnet_jax.training.checkpoint.storage import restore_some

        return self._restore(lambda path: restore_some(path, shapes), shapes, False)

    def _restore(self, read: Callable[[str], Any], like: Any, whole: bool) -> Any:
        from nfnet_jax.training.checkpoint.storage import difference

        self.wait()
        directory = self._directory(self._newest_sound())
        try:
            if not (found := difference(directory, like, whole)):
                return read(directory)
        # Orbax raises whatever its storage layers do.
        except Exception as error:
            raise UserError(
                f"checkpoint {directory} cannot be read ({_reason(error)})"
            ) from error
        raise UserError(
            f"checkpoint {directory} is of another model: {found}; expected the config "
            "and the classes that it was trained with"
        )

    def _newest_sound(self) -> int:
        """The last step whose files are as written, the same on all processes.

        Says what is wrong with later ones, which no longer count.
        """
        damage: dict[int, Unsound] = {}
        found = -1
        # One process looks: another might read a file before it is there.
        if jax.process_index() == 0:
            found = self._find_sound(damage)
        if jax.process_count() > 1:
            found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        told = "; ".join(f"{step} {reason}" for step, reason in damage.items())
        if found < 0:
            raise UserError(
                f"{self._path} holds no sound checkpoint ({told}): train again in "
                "another --workdir"
                if told
                else f"{self._path} holds no complete checkpoint"
            )
        if damage:
            sys.stderr.write(f"checkpoint {told}: taking {found} instead\n")
        for step in [step for step in self._scores if step > found]:
            del self._scores[step]
        return found

    def _find_sound(self, damage: dict[int, Unsound]) -> int:
        """The last sound step, or -1; `damage` gets those after it."""
        for step in self._steps():
            try:
                verify(self._directory(step), step=step)
                return step
            except Unsound as reason:
                damage[step] = reason
        return -1

    def _complete(self, step: int, scores: Scores) -> None:
        """Seals the checkpoint once Orbax has finished, then removes others."""
        first = jax.process_index() == 0
        try:
            self._storage.wait()
            if first:
                seal(self._directory(step), step=step, scores=scores)
            self._scores[step] = scores
            kept = kept_steps(self._scores, self._keep, self._best_metric)
            if first:
                self._remove([other for other in self._steps() if other not in kept])
            for other in self._scores.keys() - kept:
                del self._scores[other]
        except Exception as error:
            # What a full disk has no room for.
            self._remove_unfinished()
            raise self._not_written(step, error) from error

    def _remove(self, steps: list[int]) -> None:
        for directory in map(self._directory, steps):
            if is_sealed(directory):
                unseal(directory)
            shutil.rmtree(directory)

    def _remove_unfinished(self) -> None:
        """What a process left that was killed, or that failed, in a save."""
        if jax.process_index() == 0 and os.path.isdir(self._path):
            for name in os.listdir(self._path):
                if _UNFINISHED in name:
                    _remove_while_written(os.path.join(self._path, name))

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
        """Of all checkpoints, sound or not, the newest first."""
        names = os.listdir(self._path) if os.path.isdir(self._path) else []
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _remove_while_written(directory: str) -> None:
    """Threads of a save that failed may go on writing there for a while.

    What is left after two seconds, the next start removes.
    """
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.exists(directory):
            return
        time.sleep(0.1)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # As Orbax's storage layer tells it, at the end of a long line.
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
