"""kill -9 at random moments, saves included: the run ends as if nothing had been."""

import os
import signal

import jax
import numpy as np
import pytest
from tiny_run import FIRST, TinyRun, tiny_config

from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.loop import train
from nfnet_jax.training.setup import set_up


def last_state(workdir, config):
    with Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore(set_up(config).state)


def what_is_left(workdir) -> str:
    """Of a save that the kill fell into, if it did."""
    path = workdir / "checkpoints"
    names = sorted(os.listdir(path)) if path.exists() else []
    if any("orbax-checkpoint-tmp" in name for name in names):
        return "unfinished"
    if any(not (path / name / "manifest.json").exists() for name in names):
        return "unsealed"
    return "sealed" if names else "nothing"


@pytest.mark.parametrize(
    ("kills", "steps"), [(3, 60), pytest.param(30, 400, marks=pytest.mark.slow)]
)
def test_killed_runs_end_as_undisturbed_ones(kills, steps, tmp_path):
    options = {"train.steps": steps, "checkpoint.every_steps": 1}
    config = tiny_config(**options)
    random = np.random.RandomState(0)
    left = []
    for kill in range(kills):
        with TinyRun(tmp_path / "killed", **options) as run:
            # A third at any moment of the start, which takes about five seconds.
            if kill % 3 == 2:
                run.signal_after(signal.SIGKILL, random.uniform(2, 5))
            else:
                run.read_until(FIRST)
                run.signal_after(signal.SIGKILL, random.uniform(0, 0.5))
            assert run.end()[0] == -signal.SIGKILL
        left.append(what_is_left(tmp_path / "killed"))
    print({kind: left.count(kind) for kind in left})
    train(config, str(tmp_path / "killed"))
    train(config, str(tmp_path / "straight"))
    states = [last_state(tmp_path / name, config) for name in ("killed", "straight")]
    assert int(states[0].step) == steps
    jax.tree.map(np.testing.assert_array_equal, *states)
