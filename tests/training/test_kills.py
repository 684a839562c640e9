"""kill -9 at random moments, saves included: the run ends as if nothing had been."""

import json
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_run import FIRST, TinyRun, tiny_config

from nfnet_jax.training.checkpoint.manager import Checkpoints
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.loop import train

SAVES = pathlib.Path(__file__).parents[1] / "killed_saves.py"


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_what_a_killed_save_leaves_is_passed_over(kills, tmp_path):
    process = subprocess.run(
        [sys.executable, str(SAVES), str(tmp_path), str(kills)],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    left = json.loads(process.stdout)
    print(left)
    assert sum(left.values()) == kills


def last_state(workdir, config):
    with Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore(Experiment(config).abstract_state)


@pytest.mark.parametrize(
    ("kills", "steps"), [(2, 60), pytest.param(30, 300, marks=pytest.mark.slow)]
)
def test_killed_runs_end_as_undisturbed_ones(kills, steps, tmp_path):
    options = {"train.steps": steps, "checkpoint.every_steps": 1}
    config = tiny_config(**options)
    random = np.random.RandomState(0)
    for kill in range(kills):
        with TinyRun(tmp_path / "killed", **options) as run:
            # A third at any moment of the start, which takes about five seconds.
            if kill % 3 == 2:
                run.signal_after(signal.SIGKILL, random.uniform(2, 5))
            else:
                run.read_until(FIRST)
                run.signal_after(signal.SIGKILL, random.uniform(0, 0.5))
            assert run.end()[0] == -signal.SIGKILL
    train(config, str(tmp_path / "killed"))
    train(tiny_config(**{"train.steps": steps}), str(tmp_path / "straight"))
    states = [last_state(tmp_path / name, config) for name in ("killed", "straight")]
    assert int(states[0].step) == steps
    jax.tree.map(np.testing.assert_array_equal, *states)
