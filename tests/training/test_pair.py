"""What happens to one of two processes, and what becomes of the other."""

import contextlib
import re
import signal
import time

import jax
import numpy as np
import pytest
from tiny_run import FIRST, TinyRun, tiny_config
from trajectory import free_port

from nfnet_jax.training.checkpoint.manager import Checkpoints
from nfnet_jax.training.experiment import Experiment

OPTIONS = {"train.steps": 80, "checkpoint.every_steps": 10}


@contextlib.contextmanager
def pair(workdir):
    """Both processes of a run, once they can be interrupted."""
    address = f"--coordinator=127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                TinyRun(
                    workdir,
                    flags=(address, "--processes=2", f"--process={process}"),
                    **OPTIONS,
                )
            )
            for process in range(2)
        ]
        processes[0].read_until(FIRST)
        yield processes


def last_params(workdir):
    config = tiny_config(**OPTIONS)
    with Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore(Experiment(config).abstract_state).params


@pytest.mark.slow
def test_a_pair_stops_together_survives_a_death_and_ends_as_if_undisturbed(tmp_path):
    with pair(tmp_path / "straight") as processes:
        assert [process.end()[0] for process in processes] == [0, 0]

    with pair(tmp_path / "disturbed") as (first, second):
        second.process.send_signal(signal.SIGTERM)
        ends = [first.end(), second.end()]
    assert [code for code, _ in ends] == [143, 143]
    steps = [
        re.search(r"SIGTERM after step (\d+), which is", said)[1] for _, said in ends
    ]
    assert steps[0] == steps[1]

    with pair(tmp_path / "disturbed") as (first, second):
        second.process.kill()
        killed = time.monotonic()
        code, said = first.end()
        assert time.monotonic() - killed < 60
    assert code == 2
    assert said.splitlines()[-1].startswith(
        "error: another process of this run is gone"
    )

    with pair(tmp_path / "disturbed") as processes:
        assert [process.end()[0] for process in processes] == [0, 0]
    params = [last_params(tmp_path / name) for name in ("straight", "disturbed")]
    jax.tree.map(np.testing.assert_array_equal, *params)
