"""Workers that share a study, one of them killed."""

import contextlib
import pathlib
import sqlite3
import subprocess
import sys
import time

import optuna
import pytest

from nfnet_jax.sweeps import study, summary
from nfnet_jax.sweeps.space import make_space
from nfnet_jax.sweeps.trial import Failed, Pruned
from nfnet_jax.utils.errors import UserError

WORKER = pathlib.Path(__file__).with_name("worker.py")


def start(tmp_path, seconds: float) -> subprocess.Popen:
    arguments = [str(tmp_path / "study.db"), str(tmp_path / "log"), str(seconds)]
    return subprocess.Popen([sys.executable, str(WORKER), *arguments])


def heartbeats(path) -> int:
    """Number of trials that have sent one."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        (count,) = database.execute("select count(*) from trial_heartbeats").fetchone()
    return count


def test_a_killed_workers_trial_is_taken_up_again_and_the_others_run_once(tmp_path):
    log = tmp_path / "log"
    doomed = start(tmp_path, 600)
    # A trial that never sent a heartbeat is not known to be stale.
    while not log.exists() or not heartbeats(tmp_path / "study.db"):
        time.sleep(0.05)
    doomed.kill()
    doomed.wait()
    others = [start(tmp_path, 0.1) for _ in range(2)]
    assert [worker.wait() for worker in others] == [0, 0]

    (lost, killed), *rest = [line.split() for line in log.read_text().splitlines()]
    assert int(killed) == doomed.pid
    assert sorted(place for place, _ in rest) == sorted("012345")
    assert lost in [place for place, _ in rest]

    found = optuna.load_study(
        study_name="test", storage=f"sqlite:///{tmp_path / 'study.db'}"
    )
    trials = study.planned_trials(found)
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert summary.best_trial(found).params == {"data.batch_size": 4}


@pytest.fixture
def opened(tmp_path):
    space = make_space([], ["optim.momentum=uniform:0:0.9"], "8", None)
    storage = study.open_storage(str(tmp_path / "study.db"))
    yield space, study.open_study(storage, "test", space, ["a"], "maximize", True)
    storage.engine.dispose()


def test_crashes_are_recorded_and_hopeless_trials_stopped(opened, tmp_path):
    space, made = opened

    def objective(place, values, hopeless):
        if place == 1:
            raise Failed("error: out of luck")
        for step in range(3):
            if hopeless(step, 0.0 if place == 7 else 1.0 + place):
                raise Pruned("hopeless")
        return 1.0 + place

    study.work(made, space, objective)
    rows = summary.table(made, "accuracy")
    assert [row[0] for row in rows] == ["trial", "6", "5", "4", "3", "2", "0", "1", "7"]
    assert rows[-2][2:] == ["", "failed: error: out of luck"]
    assert rows[-1][2:] == ["", "stopped, hopeless"]
    written = summary.write_plots(made, tmp_path)
    assert [path.name for path in written] == [
        "history.png",
        "parallel.png",
        "importance.png",
    ]
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_another_sweep_in_the_same_study_is_refused(opened, tmp_path):
    space, made = opened
    with pytest.raises(UserError, match="is another sweep .a there, b here"):
        study.open_study(made._storage, "test", space, ["b"], "maximize", True)


def test_storages_that_cannot_be_opened_are_refused_in_one_line(tmp_path):
    for url in (str(tmp_path / "missing" / "study.db"), "nosql://host/name"):
        with pytest.raises(UserError, match="--storage .* cannot be opened") as error:
            study.open_storage(url)
        assert "\n" not in str(error.value)


def test_the_best_command_sets_config_keys_not_the_names_of_parameters(tmp_path):
    def sweep(trial):
        return {"model.name": f"nf_wrn_16_{trial.suggest_int('width', 3, 3)}"}

    space = make_space([], [], "1", sweep)
    storage = study.open_storage(str(tmp_path / "study.db"))
    made = study.open_study(storage, "test", space, ["a"], "maximize", False)
    study.work(made, space, lambda place, values, hopeless: 1.0)
    best = summary.best_trial(made)
    assert best.params == {"width": 3}
    assert summary.values_of(best) == {"model.name": "nf_wrn_16_3"}
    storage.engine.dispose()
