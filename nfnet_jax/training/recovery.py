"""Signals and losses that are not finite: how a run stops or goes back, all saved."""

import os
import signal
import sys
import threading
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.logging import Diverged
from nfnet_jax.training.state import TrainState
from nfnet_jax.utils.errors import Interrupted, UserError

_MOST_REWINDS = 3


class Interruption:
    """Notes SIGTERM and SIGINT; a context manager that restores their handlers.

    A second Ctrl-C ends the process at once, which leaves no checkpoint half written
    (see `checkpoint`). Outside of the main thread signals are left alone.

    In a run of several processes JAX's coordination service listens to SIGTERM itself,
    and makes all processes stop after the same step.
    """

    def __init__(self):
        self._noted: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
            if jax.process_count() == 1:
                former = signal.signal(signal.SIGTERM, self._note)
                self._previous[signal.SIGTERM] = former
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def after(self, step: int) -> bool:
        """True if the run shall stop after this step; the same on all processes.

        To be called after every step.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._noted is not None

    def stop(self, step: int, workdir: str) -> Interrupted:
        """The exception to raise when all is saved."""
        number = signal.Signals(self._noted or signal.SIGTERM)
        return Interrupted(
            f"stopped by {number.name} after step {step}, which is saved in {workdir}: "
            "the same command continues",
            number,
        )

    def _note(self, number: int, frame: object) -> None:
        if self._noted is None:
            self._noted = number
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)
            _say("stopping after this step; Ctrl-C stops at once\n")
        elif number == signal.SIGINT:
            _say("stopped at once; the same command continues\n")
            os._exit(128 + number)


def _say(text: str) -> None:
    # Not through sys.stderr, which the signal may have interrupted.
    os.write(2, text.encode())


class Rewinds:
    """Takes a run back to its last checkpoint, to go on with other batches."""

    def __init__(self, checkpoints: Checkpoints, steps: int):
        self._checkpoints, self._steps = checkpoints, steps
        self._step, self._count = -1, 0

    def back(self, divergence: Diverged, skipped: int, like: TrainState) -> TrainState:
        """The last checkpoint, to go on with the batch after the one that diverged.

        `skipped` is the number of batches that had been left out before.

        Raises:
          UserError: the run went back to this checkpoint three times already, or more
            batches would be left out than it has steps.
        """
        state = self._checkpoints.restore(like)
        step = int(state.step)
        self._count = self._count + 1 if step == self._step else 1
        self._step = step
        skipped += divergence.step - step
        if self._count > _MOST_REWINDS or skipped > self._steps:
            raise UserError(
                f"{divergence}; rewound {self._count - 1} times to step {step} before"
            )
        sys.stderr.write(
            f"step {divergence.step}: loss or gradient are not finite; back to step "
            f"{step}, leaving out {divergence.step - step} batches\n"
        )
        moved = jax.device_put(np.int32(skipped), state.skipped.sharding)
        return state.replace(skipped=moved)
