"""Workers that share a study, one of them killed."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time

import optuna
import pytest

from nfnet_jax.sweeps import run, study
from nfnet_jax.sweeps.space import make_space
from nfnet_jax.sweeps.trial import Failed
from nfnet_jax.utils.errors import UserError


def work(storage: str, log: str, seconds: str) -> None:
    """A worker whose trials only sleep."""
    # Of the order of what the test takes, not of what a training takes.
    study._HEARTBEAT_SECONDS, study._GRACE_SECONDS, study._POLL_SECONDS = 1, 4, 0.2
    space = make_space(["data.batch_size=1,2,3,4,5,6"], [], None, None)

    def objective(place, values, hopeless):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{place} {os.getpid()}\n")
        time.sleep(float(seconds))
        return -((values["data.batch_size"] - 4) ** 2)

    with study.open_storage(storage) as opened:
        made = study.open_study(opened, "test", space, ["a"], "maximize", False)
        study.work(made, space, objective)


def start(tmp_path, seconds: float) -> subprocess.Popen:
    arguments = [str(tmp_path / "study.db"), str(tmp_path / "log"), str(seconds)]
    return subprocess.Popen([sys.executable, __file__, *arguments])


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

    with study.open_storage(str(tmp_path / "study.db")) as opened:
        found = optuna.load_study(study_name="test", storage=opened)
        trials = run.ranked_trials(found)
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert trials[0].params == {"data.batch_size": 4}


@pytest.fixture
def storage(tmp_path):
    with study.open_storage(str(tmp_path / "study.db")) as storage:
        yield storage


def test_crashes_are_recorded_hopeless_trials_stopped_and_other_sweeps_refused(storage):
    space = make_space([], ["optim.momentum=uniform:0:0.9"], 8, None)
    made = study.open_study(storage, "test", space, ["a"], "maximize", True)

    def objective(place, values, hopeless):
        if place == 1:
            raise Failed("error: out of luck")
        for step in range(3):
            if hopeless(step, 0.0 if place == 7 else 1.0 + place):
                raise optuna.TrialPruned("hopeless")
        return 1.0 + place

    study.work(made, space, objective)
    rows = run.table(run.ranked_trials(made), "accuracy")
    assert [row[0] for row in rows] == ["trial", "6", "5", "4", "3", "2", "0", "1", "7"]
    assert rows[-2][2:] == ["", "failed: error: out of luck"]
    assert rows[-1][2:] == ["", "stopped, hopeless"]
    with pytest.raises(UserError, match="is another sweep .a there, b here"):
        study.open_study(storage, "test", space, ["b"], "maximize", True)


def test_storages_that_cannot_be_opened_are_refused_in_one_line(tmp_path):
    for url in (str(tmp_path / "missing" / "study.db"), "nosql://host/name"):
        with pytest.raises(UserError, match="--storage .* cannot be opened") as error:
            with study.open_storage(url):
                pass
        assert "\n" not in str(error.value)


def test_the_best_command_sets_config_keys_not_the_names_of_parameters(storage):
    def sweep(trial):
        return {"model.name": f"nf_wrn_16_{trial.suggest_int('width', 3, 3)}"}

    space = make_space([], [], 1, sweep)
    made = study.open_study(storage, "test", space, ["a"], "maximize", False)
    study.work(made, space, lambda place, values, hopeless: 1.0)
    (trial,) = run.ranked_trials(made)
    assert trial.params == {"width": 3}
    assert trial.user_attrs[study.VALUES] == {"model.name": "nf_wrn_16_3"}


if __name__ == "__main__":
    work(*sys.argv[1:])
