"""Metrics out: a progress bar or plain lines, metrics.jsonl, TensorBoard events."""

import json
import os
import sys

import jax
import tqdm


class MetricWriter:
    """Writes rows of numbers; a context manager that closes what it opened.

    `metrics.jsonl` in `workdir` gets one object a row, with its step; TensorBoard gets
    the same numbers. On a terminal a bar shows rate and time left, elsewhere every row
    is a line. Of several processes the first one alone writes.
    """

    def __init__(self, workdir: str, *, first_step: int, steps: int, tensorboard: bool):
        first = jax.process_index() == 0
        path = os.path.join(workdir, "metrics.jsonl") if first else os.devnull
        self._file = open(path, "a", encoding="utf-8")
        self._events = _event_writer(workdir) if tensorboard and first else None
        terminal = sys.stderr.isatty() and first
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
        self._file.write(json.dumps({"step": step} | row) + "\n")
        self._file.flush()
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


def _event_writer(workdir: str):
    # Imported here: it takes a second that a run without events need not wait.
    from tensorboardX import SummaryWriter

    return SummaryWriter(os.path.join(workdir, "events"))
