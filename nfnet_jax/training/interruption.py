"""SIGTERM and Ctrl-C during training: finish the step, save, end."""

import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from nfnet_jax.utils.errors import Interrupted


class Interruption:
    """Notes SIGTERM and SIGINT; a context manager that restores what handled them.

    Ctrl-C once more ends the process at once; nothing is half written by that (see
    `checkpoint`). Signals are left alone outside of the main thread.

    Of several processes, JAX's coordination service tells all when one was told to
    stop, and after which step: it listens to SIGTERM itself.
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
        """Whether to stop after this step, the same on all processes.

        To be asked after every step.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._noted is not None

    def stop(self, step: int, workdir: str) -> Interrupted:
        """What to raise when all is saved."""
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
