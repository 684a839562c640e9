"""TensorBoard, W&B and the profiler's trace: they change nothing and may fail."""

import glob
import gzip
import importlib.util
import itertools
import json
import re
import sys
from unittest import mock

import jax
import numpy as np
import pytest
from tiny_run import UNDISTURBED, last_state, metric_rows, tiny_config

from nfnet_jax.training import loop
from nfnet_jax.training.logging import MetricWriter, traced_steps
from nfnet_jax.training.timeline import Timeline, make_timeline
from nfnet_jax.utils.errors import UserError

ALL = {"log.tensorboard": True, "log.wandb": True, "log.profile_steps": 3}


@pytest.fixture
def wandb(monkeypatch):
    """A mock in the place of the module."""
    module = mock.MagicMock(__spec__=mock.Mock())
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return module


def test_extra_logs_change_nothing(wandb, undisturbed, tmp_path, capsys):
    plain, full = undisturbed, tmp_path / "full"
    capsys.readouterr()
    loop.train(tiny_config(**UNDISTURBED | ALL), str(full))
    told = capsys.readouterr()
    assert metric_rows(full) == metric_rows(plain)
    states = [last_state(workdir) for workdir in (plain, full)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert not {"events", "profile", "wandb_run.json"} & set(
        path.name for path in plain.iterdir()
    )
    assert told.err == ""
    (events,) = (full / "events").iterdir()
    written = events.read_bytes()
    names = {name for row in metric_rows(full) for name in row} - {"step"}
    assert all(name.encode() in written for name in names)
    _check_wandb(wandb, full)
    _check_trace(told.out, full)
    assert re.search(r"images/s in the first \d+ steps that were measured", told.out)
    assert re.search(r"step 16/16  loss \S+  accuracy .*images/s", told.out)


def _check_wandb(wandb, workdir):
    (init,) = wandb.init.call_args_list
    assert init.kwargs == {
        "project": "nfnet_jax",
        "name": "run",
        "dir": str(workdir),
        "id": json.loads((workdir / "wandb_run.json").read_text())["id"],
        "resume": "allow",
    }
    run = wandb.init.return_value
    assert run.config.update.call_args.args[0]["model"]["name"] == "nf_wrn_10_1"
    run.define_metric.assert_called_once_with("*", step_metric="step")
    assert [call.args[0] for call in run.log.call_args_list] == metric_rows(workdir)
    run.finish.assert_called_once_with(exit_code=0)


def _check_trace(told, workdir):
    """Checks that a trace has three steps, in which nothing was compiled."""
    assert f"profile of steps 2 to 4: {workdir}/profile; open it by" in told
    (path,) = glob.glob(f"{workdir}/profile/**/*.trace.json.gz", recursive=True)
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert names.count("train") == 3
    assert any("PjitFunction(train_step)" in name for name in names)
    assert not [name for name in names if "compile_or_get_cached" in name]


def test_a_continued_run_is_the_same_one_for_wandb(wandb, tmp_path):
    config = tiny_config(**{"log.wandb": True})
    with pytest.raises(KeyboardInterrupt):
        with MetricWriter(str(tmp_path), config) as writer:
            writer.write(1, {"loss": 2.0})
            raise KeyboardInterrupt
    with MetricWriter(str(tmp_path), config) as writer:
        writer.write(1, {"loss": 2.0})
    one, two = wandb.init.call_args_list
    assert one == two
    run = wandb.init.return_value
    assert run.finish.call_args_list == [mock.call(exit_code=1), mock.call(exit_code=0)]
    assert [call.args[0] for call in run.log.call_args_list] == metric_rows(tmp_path)


@pytest.mark.parametrize(
    "failing", ["init", "run.config.update", "run.log", "run.finish"]
)
def test_failures_of_wandb_end_nothing(failing, wandb, tmp_path, capsys):
    wandb.run = wandb.init.return_value
    reason = f"{failing} has no\nnetwork"
    wandb.configure_mock(**{f"{failing}.side_effect": RuntimeError(reason)})
    with MetricWriter(str(tmp_path), tiny_config(**{"log.wandb": True})) as writer:
        writer.write(1, {"loss": 2.0})
        writer.write(2, {"loss": 1.0})
    line = f"W&B: {failing} has no network; the run goes on without it\n"
    assert capsys.readouterr().err == line
    assert wandb.run.log.call_count == {"run.log": 1, "run.finish": 2}.get(failing, 0)
    assert [row["loss"] for row in metric_rows(tmp_path)] == [2.0, 1.0]


def test_wandb_that_is_not_installed_is_one_line_before_anything(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "wandb" else find_spec(n)
    )
    monkeypatch.setattr(loop, "check_workdir", None)
    with pytest.raises(UserError, match=r"log.wandb needs .*'\.\[wandb\]'"):
        loop.train(tiny_config(**{"log.wandb": True}), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def compiling_steps(first: int, plan: Timeline) -> set[int]:
    """Steps before which, or in which, a process that starts after `first` compiles."""
    after_evaluations = {
        step + 1 for step in range(plan.eval_every, plan.steps, plan.eval_every)
    }
    return {first + 1, plan.small_steps + 1} | after_evaluations


def test_traced_steps_compile_nothing():
    found = set()
    for first, every, small, count in itertools.product(
        (0, 3, 7), (1, 2, 5, 20), (0, 1, 2, 5), (0, 1, 3, 50)
    ):
        config = tiny_config(**{"train.steps": 20, "data.batch_size": 8})
        config.eval.every_epochs = every / 10
        if small:
            config.update_from_flattened_dict(
                {"train.small_size": 4, "train.small_share": small / 20}
            )
        plan = make_timeline(config, train_examples=80, devices=1)
        assert (plan.eval_every, plan.small_steps) == (every, small)
        traced = traced_steps(first, plan, count)
        assert len(traced) <= count and set(traced) <= set(range(first + 2, 21))
        assert bool(traced) == bool(count)
        # The first may follow an evaluation: that one is over when the trace begins.
        assert not set(traced[1:]) & compiling_steps(first, plan)
        assert not set(traced) & {first + 1, small + 1}
        found.add(len(traced))
    assert {0, 1, 3} <= found
