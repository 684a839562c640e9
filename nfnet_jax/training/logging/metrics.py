"""Metrics out: metrics.jsonl, TensorBoard events, Weights & Biases."""

import errno
import os

import jax
from ml_collections import ConfigDict

from nfnet_jax.training.logging.wandb import WandbLog
from nfnet_jax.training.workdir import writing
from nfnet_jax.utils.strict_json import dumps


class MetricWriter:
    """Writes rows of numbers; a context manager that closes what it opened.

    `metrics.jsonl` in `workdir` gets one object a row, with its step, and null for what
    is not finite; TensorBoard and
    W&B, where `config.log` says so, get the same numbers. Of several processes the
    first one alone writes.
    """

    def __init__(self, workdir: str, config: ConfigDict):
        first = jax.process_index() == 0
        self._path = os.path.join(workdir, "metrics.jsonl") if first else os.devnull
        with writing(self._path):
            self._file = open(self._path, "ab", buffering=0)
        self._events = self._wandb = None
        if config.log.tensorboard and first:
            self._events = _event_writer(workdir)
        if config.log.wandb and first:
            self._wandb = WandbLog(workdir, config)

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        self._file.close()
        if self._events:
            self._events.close()
        if self._wandb:
            self._wandb.close(failed=kind is not None)

    def write(self, step: int, row: dict[str, float]) -> None:
        """One row of metrics."""
        with writing(self._path):
            self._append(dumps({"step": step} | row) + "\n")
        if self._events:
            for name, value in row.items():
                self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.write(step, row)

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
