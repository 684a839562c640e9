"""Metrics out: a progress bar or plain lines, metrics.jsonl, TensorBoard events."""

import errno
import json
import os
import sys

import tqdm

from nfnet_jax.training.workdir import writing


class MetricWriter:
    """Writes rows of numbers; a context manager that closes what it opened.

    `metrics.jsonl` in `workdir` gets one object a row, with its step; TensorBoard gets
    the same numbers. On a terminal a bar shows rate and time left, elsewhere every row
    is a line.
    """

    def __init__(self, workdir: str, *, first_step: int, steps: int, tensorboard: bool):
        self._path = os.path.join(workdir, "metrics.jsonl")
        with writing(self._path):
            self._file = open(self._path, "ab", buffering=0)
        self._events = _event_writer(workdir) if tensorboard else None
        terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=steps, initial=first_step, unit="step", disable=not terminal
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._bar.close()
        self._file.close()
        if self._events:
            self._events.close()

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        self._bar.update(step - self._bar.n)

    def write(self, step: int, row: dict[str, float], *, show: bool = True) -> None:
        """One row of metrics, in the files and, with `show`, on the screen."""
        with writing(self._path):
            self._append(json.dumps({"step": step} | row) + "\n")
        if self._events:
            for name, value in row.items():
                self._events.add_scalar(name, value, step)
        if not show:
            return
        line = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
        if self._bar.disable:
            print(f"step {step}  {line}", flush=True)
        else:
            self._bar.write(f"step {step}  {line}")

    def _append(self, line: str) -> None:
        """A whole line or nothing."""
        encoded = line.encode()
        written = self._file.write(encoded)
        if written < len(encoded):
            self._file.truncate(self._file.tell() - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _event_writer(workdir: str):
    # Imported here: it takes a second that a run without events need not wait.
    from tensorboardX import SummaryWriter

    return SummaryWriter(os.path.join(workdir, "events"))
