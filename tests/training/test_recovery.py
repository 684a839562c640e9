"""Signals that end a run after a saved step, and one run at a time in a directory."""

import os
import platform
import signal
import threading
import time

import jax
import numpy as np
import pytest
from tiny_run import (
    FIRST,
    UNDISTURBED,
    TinyRun,
    last_state,
    state_at,
    tiny_config,
)

from nfnet_jax import cli
from nfnet_jax.training import loop
from nfnet_jax.training.checkpoint import Checkpoints, SaveTimes
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.workdir import check_unlocked, lock_workdir, read_result
from nfnet_jax.utils.errors import UserError


def checkpoint_files(workdir) -> dict[str, bytes]:
    files = (path for path in (workdir / "checkpoints").rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def kill_in(replace_updates):
    """kill_in(step, signal): this process gets the signal when later runs begin it."""

    def kill_in(step, number):
        def call(update, state, fed):
            if int(state.step) == step - 1:
                os.kill(os.getpid(), number)
            return update(state, fed)

        replace_updates(call)

    return kill_in


def test_a_run_ended_in_every_way_continues_bit_for_bit(
    undisturbed, tmp_path, kill_in, capfd
):
    workdir, config = tmp_path / "run", tiny_config(**UNDISTURBED)
    with TinyRun(workdir, **UNDISTURBED) as run:
        run.read_until(FIRST)
        refused = f"in use by another run .process {run.process.pid} on "
        with pytest.raises(UserError, match=refused + platform.node()):
            loop.train(config, str(workdir))
        run.read_until("step 3/16")
        run.process.kill()
        assert run.end()[0] == -signal.SIGKILL

    before = checkpoint_files(workdir)
    with TinyRun(workdir, **UNDISTURBED) as run:
        # Now it compiles, and has its first step before it.
        run.read_until("continuing from step ")
        run.process.send_signal(signal.SIGINT)
        assert run.process.stderr.readline().startswith("stopping after this step")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == (130, "stopped at once; the same command continues\n")
    assert checkpoint_files(workdir) == before
    check_unlocked(str(workdir))

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        step = int(last_state(workdir).step) + 2
        capfd.readouterr()
        kill_in(step, number)
        with pytest.raises(SystemExit) as end:
            cli.run(lambda argv: loop.train(config, str(workdir)))
        assert end.value.code == code
        announced, stopped = capfd.readouterr().err.splitlines()
        assert announced.startswith("stopping after this step")
        assert f"stopped by {number.name} after step {step}, which is saved" in stopped
        found = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        assert found == handlers
        states = last_state(workdir), state_at(undisturbed, step)
        jax.tree.map(np.testing.assert_array_equal, *states)

    # A signal in the last step lets the run finish.
    kill_in(16, signal.SIGTERM)
    assert loop.train(config, str(workdir))["steps"] == 16
    states = last_state(workdir), last_state(undisturbed)
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_run_killed_after_its_last_step_still_has_a_result(undisturbed, tmp_path):
    config = tiny_config(**UNDISTURBED)
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(last_state(undisturbed))
    result = loop.train(config, str(tmp_path))
    expected = read_result(str(undisturbed))
    assert result["test_loss"] == expected["test_loss"]


def test_a_run_outside_of_the_main_thread_leaves_signals_alone(tmp_path):
    config = tiny_config(**{"train.steps": 1})
    results = []
    thread = threading.Thread(
        target=lambda: results.append(loop.train(config, str(tmp_path)))
    )
    thread.start()
    thread.join()
    assert results[0]["steps"] == 1


# --- One run at a time ----------------------------------------------------------------


def test_only_a_held_directory_is_refused(tmp_path):
    workdir = str(tmp_path / "run")
    check_unlocked(workdir)
    with lock_workdir(workdir):
        for attempt in (check_unlocked, lambda path: lock_workdir(path).__enter__()):
            with pytest.raises(UserError, match=f"process {os.getpid()} on ") as error:
                attempt(workdir)
            assert "another --workdir" in str(error.value)
    # Where a process died, the file stays.
    (tmp_path / "run/lock").write_text("process 1 on elsewhere")
    check_unlocked(workdir)
    with lock_workdir(workdir):
        pass


# --- When to save ---------------------------------------------------------------------


def test_minutes_are_those_of_the_monotonic_clock(monkeypatch):
    config = tiny_config(**{"checkpoint.every_minutes": 2.0})
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    times = SaveTimes(config, Experiment(config).timeline)
    for jump in (-1e9, 1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: jump)
        assert not times.due(1)
    now += 119.0
    assert not times.due(2)
    now += 1.0
    assert times.due(3)
    times.saved()
    assert not times.due(4)


def test_steps_and_epochs_count_side_by_side():
    epoch = 1438 / 16
    config = tiny_config(
        **{"checkpoint.every_steps": 8, "checkpoint.every_epochs": 20 / epoch}
    )
    times = SaveTimes(config, Experiment(config).timeline)
    due = [step for step in range(1, 41) if times.due(step)]
    assert due == [8, 16, 20, 24, 32, 40]
