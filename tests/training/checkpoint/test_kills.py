"""Kills by signal 9 at random moments, those of saves included."""

import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_run import FIRST, TinyRun, last_state, tiny_config

from nfnet_jax.training.loop import train

SAVES = pathlib.Path(__file__).parents[2] / "killed_saves.py"


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_what_a_killed_save_leaves_is_passed_over(kills, tmp_path):
    process = subprocess.run(
        [sys.executable, str(SAVES), str(tmp_path), str(kills)],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    "kills",
    [pytest.param(6, marks=pytest.mark.slow), pytest.param(30, marks=pytest.mark.soak)],
)
def test_a_run_killed_again_and_again_ends_as_if_undisturbed(kills, tmp_path):
    options = {"train.steps": 300, "checkpoint.every_steps": 1}
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
    train(tiny_config(**options), str(tmp_path / "killed"))
    train(tiny_config(**{"train.steps": 300}), str(tmp_path / "straight"))
    states = [last_state(tmp_path / name) for name in ("killed", "straight")]
    assert int(states[0].step) == 300
    jax.tree.map(np.testing.assert_array_equal, *states)
