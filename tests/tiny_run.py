"""A tiny run on digits in a process of its own, to be disturbed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import jax

from nfnet_jax.config import base_config
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.experiment import Experiment

OPTIONS = {
    "model.name": "nf_wrn_10_1",
    "data.batch_size": 16,
    "optim.learning_rate": 0.05,
    # So that runs of any length are one compiled program.
    "optim.schedule.name": "constant",
    "optim.schedule.warmup_epochs": 0.0,
    "train.steps": 40,
    "eval.every_epochs": 0.0,
    "log.every_steps": 1,
    "log.tensorboard": False,
}
FIRST = "the first of this process"
"""Words that a run prints once it can be interrupted."""
UNDISTURBED = {
    "train.steps": 16,
    "eval.every_epochs": 8 * 16 / 1438,
    "checkpoint.every_steps": 1,
    "checkpoint.keep": 16,
}
"""Options of the run of the fixture `undisturbed`, evaluated every eight steps."""


def tiny_config(**changes):
    """The config of the run, with `changes`."""
    config = base_config()
    config.update_from_flattened_dict(OPTIONS | changes)
    return config


def write_config(file: pathlib.Path, changes: dict) -> str:
    """Writes a config file of the run, with `changes`; the flag that names it."""
    file.write_text(
        "from tiny_run import tiny_config\n\n\n"
        f"def get_config():\n    return tiny_config(**{changes!r})\n"
    )
    return f"--config={file}"


def last_state(workdir, config=None):
    """The state that a run in `workdir` would continue from, by default a tiny one."""
    with Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore(Experiment(config or tiny_config()).abstract_state)


def state_at(workdir, step: int):
    """The state of a tiny run after `step` updates, which `workdir` holds."""
    from nfnet_jax.training.checkpoint.storage import restore

    like = Experiment(tiny_config()).abstract_state
    return restore(f"{workdir}/checkpoints/{step}", like, whole=True)


def metric_rows(workdir) -> list[dict]:
    """The rows of metrics.jsonl."""
    lines = pathlib.Path(workdir, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


class TinyRun:
    """`python -m nfnet_jax.train` of `tiny_config`, started; a context manager.

    `prefix` are commands to run it by, `flags` further ones of its own.
    """

    def __init__(
        self, workdir: pathlib.Path, *prefix: str, flags: Sequence[str] = (), **changes
    ):
        config = write_config(workdir.parent / f"{workdir.name}.py", changes)
        tests = str(pathlib.Path(__file__).parent)
        paths = [tests, os.environ.get("PYTHONPATH", "")]
        environment = {
            "PYTHONPATH": os.pathsep.join(paths),
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.process = subprocess.Popen(
            [
                *prefix,
                *(sys.executable, "-u", "-m", "nfnet_jax.train"),
                *(config, f"--workdir={workdir}"),
                *flags,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.communicate()

    def read_until(self, text: str) -> str:
        """Reads standard output up to the line that holds `text`; that line."""
        for line in self.process.stdout:
            if text in line:
                return line
        raise AssertionError(self.process.communicate()[1])

    def signal_after(self, number: signal.Signals, seconds: float) -> None:
        time.sleep(seconds)
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Waits for the end; the exit code and all of standard error."""
        _, stderr = self.process.communicate(timeout=120)
        return self.process.returncode, stderr
