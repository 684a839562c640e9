"""A program: some steps of a run on digits, augmented every way, and their losses.

    python trajectory.py '{"changes": {KEY: VALUE, ...}, "steps": [FIRST, LAST],
        "restore": DIRECTORY, "save": DIRECTORY}' [COORDINATOR PROCESSES PROCESS]

prints a JSON list of the losses; `devices` runs it.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from types import MappingProxyType

import jax
from tiny_run import tiny_config

from nfnet_jax.cli import prepare_jax
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.distributed import connect
from nfnet_jax.training.experiment import Experiment

CHANGES = {
    "model.stochastic_depth": 0.3,
    "model.drop_rate": 0.2,
    "data.batch_size": 32,
    "data.augment.crop_padding": 1,
    "data.augment.flip": True,
    "data.augment.cutout": 2,
    "data.augment.randaugment.layers": 2,
    "data.augment.randaugment.magnitude": 2,
    "data.augment.erasing": 0.3,
    "train.mixup": 0.2,
    "train.cutmix": True,
    "train.label_smoothing": 0.1,
    "train.steps": 20,
}


def devices(count: int, processes: int = 1, **task) -> list[float]:
    """Losses of the steps on `count` simulated devices of each process."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(count),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, __file__, json.dumps(task)]
    coordinator = f"127.0.0.1:{free_port()}"
    running = []
    for process in range(processes):
        place = [coordinator, str(processes), str(process)] if processes > 1 else []
        running.append(
            subprocess.Popen(
                command + place,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    results = [process.communicate(timeout=500) for process in running]
    for process, (_, errors) in zip(running, results, strict=True):
        assert process.returncode == 0, errors[-3000:]
    printed = [_without_gloo(output) for output, _ in results]
    assert not any(printed[1:]), "only process 0 prints"
    return json.loads(printed[0][-1])


def _without_gloo(output: str) -> list[str]:
    """The lists of numbers: lines of the library that connects CPUs cut each other."""
    return [line for line in output.splitlines() if re.match(r"\[\d", line)]


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(
    changes=MappingProxyType({}), steps=(0, 20), restore=None, save=None, details=False
):
    """Losses of the steps in this process; states come from and go to directories.

    With `details`, also sums of the sizes of the last averaged parameters and metrics.
    """
    run = Experiment(tiny_config(**CHANGES | dict(changes)))
    first, last = steps
    if restore:
        with Checkpoints(restore) as checkpoints:
            state = checkpoints.restore(run.abstract_state)
    else:
        state = run.state
    assert int(state.step) == first
    losses = []
    with contextlib.closing(run.train_batches.iterate(first)) as host_batches:
        for _ in range(first, last):
            state, metrics = run.train_step(state, next(host_batches))
            losses.append(float(metrics["loss"]))
    if save:
        with Checkpoints(save) as checkpoints:
            checkpoints.save(state)
    if details:
        ends = jax.tree.leaves((state.ema_params, metrics))
        losses += [float(abs(leaf).sum()) for leaf in ends]
    return losses


def main() -> None:
    prepare_jax()
    coordinator, *numbers = sys.argv[2:] or [None]
    connect(coordinator, *(map(int, numbers) if numbers else [None] * 2))
    print(json.dumps(run(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
