"""The sweep command, and a trial of a few steps."""

import csv
import pathlib
import shlex

import jax
import pytest

from nfnet_jax import sweep
from nfnet_jax.sweeps import trial
from nfnet_jax.utils.errors import UserError

CONFIG = str(pathlib.Path(__file__).parents[2] / "configs" / "digits.py")
TINY = ["--config.model.name=nf_bottleneck_1_4", "--config.train.steps=3"]
TINY += ["--config.log.tensorboard=False", "--config.data.eval_split=test[:16]"]
TINY += ["--config.data.eval_batch_size=16"]


@pytest.mark.slow
def test_a_trial_is_a_training_in_a_process(tmp_path, monkeypatch):
    cache = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", cache)
    arguments = [f"--config={CONFIG}", *TINY]
    asked = []

    def hopeless(*evaluation):
        asked.append(evaluation)

    value = trial.train(arguments, tmp_path / "0000", "accuracy", hopeless)
    assert asked == [(3, value)] and 0 <= value <= 1
    assert "test accuracy" in (tmp_path / "0000.log").read_text(encoding="utf-8")
    # More than there are.
    arguments.append("--config.data.batch_size=5000")
    with pytest.raises(trial.Failed, match="error: data.batch_size is 5000"):
        trial.train(arguments, tmp_path / "0001", "accuracy", hopeless)


def test_a_grid_with_a_crash_ends_in_a_table_a_command_and_plots(
    tmp_path, capfd, monkeypatch
):
    def train(arguments, workdir, metric, hopeless):
        size = arguments[-1].removeprefix("--config.data.batch_size=")
        if size == "5000":
            raise trial.Failed("error: data.batch_size is 5000")
        return {"16": 0.5, "32": 0.25}[size]

    monkeypatch.setattr("nfnet_jax.sweeps.run.train", train)
    workdir = tmp_path / "sweep"
    command = ["sweep", "--config", CONFIG, *TINY, f"--workdir={workdir}"]
    command += ["--grid", "config.data.batch_size=16,32,5000"]
    sweep.main(command)
    with (workdir / "trials.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["trial", "data.batch_size", "accuracy", ""]
    accuracies = [float(row[2]) for row in rows[:2]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert rows[2][1] == "5000" and "failed: error: data.batch_size" in rows[2][3]
    printed = capfd.readouterr().out
    again = next(line for line in printed.splitlines() if line.startswith("python"))
    assert f"--config.data.batch_size={rows[0][1]}" in shlex.split(again)
    for name in ("history.png", "parallel.png", "importance.png"):
        assert (workdir / name).stat().st_size > 5000

    sweep.main(command)  # finished: tells the same again and trains nothing
    assert capfd.readouterr().out == printed


def test_a_dry_run_lists_the_trials_and_writes_nothing(tmp_path, capsys):
    command = ["sweep", "--config", CONFIG, f"--workdir={tmp_path / 'sweep'}"]
    command += ["--grid", "config.optim.momentum=0.8,0.9", "--trials=2", "--dry_run"]
    sweep.main([*command, "--sample", "config.optim.learning_rate=log:0.01:1"])
    *trials, drawn = capsys.readouterr().out.splitlines()
    assert [shlex.split(line)[4] for line in trials] == [
        f"--config.optim.momentum={value}" for value in (0.8, 0.8, 0.9, 0.9)
    ]
    assert drawn == "and config.optim.learning_rate drawn from log from 0.01 to 1"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--grid", "optim.momentum=0.5,2"], "optim.momentum is 2.0, expected"),
        (["--grid", "optim.momentum=a,b"], "optim.momentum is 'a', expected"),
        (["--grid", "optim.momentum=0.5", "--metric=acc"], "--metric is 'acc'"),
        (["--grid", "optim.momentum=0.5", "--prune=no"], "--prune is 'no'"),
        (["--sample", "optim.momentum=0.1,0.2", "--trials=0"], "--trials is '0'"),
    ],
)
def test_values_that_a_trial_could_not_take_are_refused_at_once(
    flags, message, tmp_path
):
    with pytest.raises(UserError, match=message):
        sweep.main(["sweep", "--config", CONFIG, f"--workdir={tmp_path / 's'}", *flags])
    assert not list(tmp_path.iterdir())
