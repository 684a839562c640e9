"""Signals end a run after its step, saved; one run at a time in a work directory."""

import os
import platform
import signal
import threading
import time

import jax
import numpy as np
import pytest
from tiny_run import FIRST, TinyRun, tiny_config

from nfnet_jax.training import loop
from nfnet_jax.training.checkpoint.manager import Checkpoints
from nfnet_jax.training.checkpoint.save_times import SaveTimes
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.lock import check_free, hold
from nfnet_jax.utils.errors import Interrupted, UserError

MANY = {"train.steps": 100_000}


def latest(workdir):
    """The state that a run would continue from."""
    with Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore(Experiment(tiny_config()).abstract_state)


def test_signals_save_and_end_and_the_second_ctrl_c_ends_at_once(tmp_path):
    workdir = tmp_path / "run"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with TinyRun(workdir, **MANY) as run:
            run.read_until(FIRST)
            refused = f"in use by another run .process {run.process.pid} on "
            with pytest.raises(UserError, match=refused + platform.node()):
                loop.train(tiny_config(**MANY), str(workdir))
            run.process.send_signal(number)
            found, stderr = run.end()
        assert found == code
        announced, stopped = stderr.splitlines()
        assert announced.startswith("stopping after this step")
        step = int(latest(workdir).step)
        assert f"stopped by {number.name} after step {step}, which is saved" in stopped

    before = checkpoint_files(workdir)
    assert any(f"/{step}/" in path for path in before)
    with TinyRun(workdir, **MANY) as run:
        # Now it compiles, and has its first step before it.
        run.read_until(f"continuing from step {step}")
        run.process.send_signal(signal.SIGINT)
        assert run.process.stderr.readline().startswith("stopping after this step")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == (130, "stopped at once; the same command continues\n")
    assert checkpoint_files(workdir) == before
    check_free(str(workdir))


def checkpoint_files(workdir) -> dict[str, bytes]:
    files = (path for path in (workdir / "checkpoints").rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The work directory of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("straight")
    loop.train(tiny_config(), str(workdir))
    return workdir


def kill_at(step: int, number: signal.Signals, monkeypatch) -> None:
    """Sends this process the signal when the run begins the step."""
    make_train_step = Experiment.make_train_step

    def make(*arguments, **options):
        update = make_train_step(*arguments, **options)
        steps = iter(range(1, 1000))

        def run(state, fed):
            if next(steps) == step:
                os.kill(os.getpid(), number)
            return update(state, fed)

        return run

    monkeypatch.setattr(Experiment, "make_train_step", make)


def test_an_interrupted_run_continues_bit_for_bit(straight, tmp_path, monkeypatch):
    workdir = str(tmp_path / "run")
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        kill_at(7, signal.SIGTERM, patch)
        with pytest.raises(Interrupted, match="SIGTERM after step 7") as stop:
            loop.train(tiny_config(), workdir)
    assert stop.value.signal == signal.SIGTERM
    assert handlers == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    assert int(latest(workdir).step) == 7
    loop.train(tiny_config(), workdir)
    jax.tree.map(np.testing.assert_array_equal, latest(workdir), latest(straight))


def test_a_signal_in_the_last_step_lets_the_run_finish(tmp_path, monkeypatch):
    config = tiny_config(**{"train.steps": 3})
    kill_at(3, signal.SIGTERM, monkeypatch)
    assert loop.train(config, str(tmp_path / "run"))["steps"] == 3


def test_a_run_killed_after_its_last_step_still_has_a_result(straight, tmp_path):
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(latest(straight))
    result = loop.train(tiny_config(), str(tmp_path))
    expected = loop.read_result(str(straight))
    assert result["test_loss"] == expected["test_loss"]


def test_a_run_outside_of_the_main_thread_leaves_signals_alone(tmp_path):
    config = tiny_config(**{"train.steps": 2})
    results = []
    thread = threading.Thread(
        target=lambda: results.append(loop.train(config, str(tmp_path)))
    )
    thread.start()
    thread.join()
    assert results[0]["steps"] == 2


# --- One run at a time ----------------------------------------------------------------


def test_only_a_held_directory_is_refused(tmp_path):
    workdir = str(tmp_path / "run")
    check_free(workdir)
    with hold(workdir):
        for attempt in (lambda: check_free(workdir), hold(workdir).__enter__):
            with pytest.raises(UserError, match=f"process {os.getpid()} on ") as error:
                attempt()
            assert "another --workdir" in str(error.value)
    # Where a process died, the file stays.
    (tmp_path / "run/lock").write_text("process 1 on elsewhere")
    check_free(workdir)
    with hold(workdir):
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
