"""Metrics of a run in metrics.jsonl, TensorBoard events and Weights & Biases."""

import contextlib
import errno
import importlib.util
import os
import secrets
import sys
from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from nfnet_jax.config import to_json
from nfnet_jax.training.workdir import read_json, write_json, writing
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.strict_json import dumps


class MetricWriter:
    """Writes rows of numbers; a context manager that closes what it opened.

    `metrics.jsonl` in `workdir` gets one object per row, with its step, and null for
    numbers that are not finite; TensorBoard and W&B, if `config.log` asks for them, get
    the same numbers. In a run of several processes only the first one writes.
    """

    def __init__(self, workdir: str, config: ConfigDict):
        first = jax.process_index() == 0
        self._path = os.path.join(workdir, "metrics.jsonl") if first else os.devnull
        with writing(self._path):
            self._file = open(self._path, "ab", buffering=0)
        self._events = self._wandb = None
        if config.log.tensorboard and first:
            # Imported here: it takes a second that a run without events need not wait.
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(os.path.join(workdir, "events"))
        if config.log.wandb and first:
            self._wandb = _WandbLog(workdir, config)

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        self._file.close()
        if self._events:
            self._events.close()
        if self._wandb:
            self._wandb.close(failed=kind is not None)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Writes one row of metrics."""
        with writing(self._path):
            self._append(dumps({"step": step} | row) + "\n")
        if self._events:
            for name, value in row.items():
                self._events.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.write(step, row)

    def _append(self, line: str) -> None:
        """Appends a whole line or nothing."""
        encoded = line.encode()
        written = self._file.write(encoded)
        if written < len(encoded):
            self._file.truncate(self._file.tell() - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_wandb(config: ConfigDict) -> None:
    """Raises UserError if W&B is asked for and not installed."""
    if config.log.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError("log.wandb needs the package wandb: pip install -e '.[wandb]'")


class _WandbLog:
    """The W&B run of a work directory, resumed when the training continues.

    Its files lie in `workdir`/wandb; the environment variables of W&B, such as
    WANDB_PROJECT and WANDB_MODE=offline, hold. The first failure of any kind is
    reported in a line, never ends the training, and nothing is sent from then on.
    """

    def __init__(self, workdir: str, config: ConfigDict):
        self._run = None
        with self._failures_reported():
            import wandb

            run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "nfnet_jax"),
                name=config.name,
                dir=workdir,
                id=_wandb_id(workdir),
                resume="allow",
            )
            # A continued run may change some values.
            run.config.update(to_json(config), allow_val_change=True)
            # Steps are the axis, so that W&B takes those that a continued run repeats.
            run.define_metric("*", step_metric="step")
            self._run = run

    def write(self, step: int, row: dict[str, float]) -> None:
        with self._failures_reported():
            if self._run:
                self._run.log({"step": step} | row)

    def close(self, *, failed: bool) -> None:
        """Waits until everything is sent."""
        with self._failures_reported():
            if self._run:
                self._run.finish(exit_code=int(failed))

    @contextlib.contextmanager
    def _failures_reported(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._run = None
            reason = " ".join(str(error).split()) or type(error).__name__
            sys.stderr.write(f"W&B: {reason}; the run goes on without it\n")


def _wandb_id(workdir: str) -> str:
    """Id of the work directory's W&B run, drawn when first asked for."""
    path = os.path.join(workdir, "wandb_run.json")
    if not os.path.exists(path):
        write_json(path, {"id": secrets.token_hex(4)})
    return read_json(path)["id"]
