"""Whole runs on digits: what they leave, that they resume, that they learn."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from nfnet_jax.config import base_config, to_json
from nfnet_jax.training import loop
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.timeline import differentiated_examples, make_timeline
from nfnet_jax.training.trained import score_checkpoint
from nfnet_jax.utils.errors import UserError

RESULT_KEYS = {
    "test_accuracy",
    "test_accuracy_ema",
    "test_loss",
    "steps",
    "seconds",
    "images_per_second",
    "parameters",
    "multiply_adds",
    "train_flops",
    "dataset",
    "versions",
    "config",
}


def small_config(**changes):
    config = base_config()
    config.model.name = "nf_wrn_10_1"
    config.data.batch_size = 32
    config.train.steps = 30
    config.optim.schedule.warmup_epochs = 0.1
    config.log.every_steps = 8
    config.log.tensorboard = False
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("runs") / "small")
    config = small_config(**{"log.tensorboard": True})
    return config, workdir, loop.train(config, workdir)


def test_result_has_its_keys_and_is_what_the_file_holds(finished):
    config, workdir, result = finished
    assert result.keys() == RESULT_KEYS
    with open(f"{workdir}/result.json") as file:
        assert json.load(file) == result
    assert result["config"] == to_json(config)
    flops = 2 * 3 * result["multiply_adds"] * 30 * 32
    assert result["train_flops"] == flops
    assert result["parameters"] == 78_045
    assert 0.2 < result["test_accuracy"] <= 1


def test_metrics_are_rows_of_means_in_order(finished):
    _, workdir, result = finished
    with open(f"{workdir}/metrics.jsonl") as file:
        rows = [json.loads(line) for line in file]
    train = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in train] == [8, 16, 24, 30]
    assert train[-1]["train/loss"] < train[0]["train/loss"]
    assert all(0 <= row["train/clip_fraction"] <= 1 for row in train)
    assert rows[-1]["test/accuracy"] == result["test_accuracy"]


def test_tensorboard_gets_the_same_numbers(finished):
    _, workdir, _ = finished
    with open(f"{workdir}/metrics.jsonl") as file:
        names = {key for line in file for key in json.loads(line)} - {"step"}
    (events,) = pathlib.Path(workdir, "events").iterdir()
    written = events.read_bytes()
    assert all(name.encode() in written for name in names)


def test_last_checkpoint_scores_what_the_result_says(finished):
    config, workdir, result = finished
    scores = score_checkpoint(config, workdir)
    assert scores["step"] == 30
    assert scores["accuracy"] == result["test_accuracy"]
    assert scores["accuracy_ema"] == result["test_accuracy_ema"]


def test_a_result_that_lacks_its_scores_is_damaged(finished, tmp_path):
    config, workdir, result = finished
    for name in ("config.json", "data.json"):
        shutil.copy(pathlib.Path(workdir) / name, tmp_path)
    for key in ("test_accuracy", "images_per_second"):
        left = {name: value for name, value in result.items() if name != key}
        (tmp_path / "result.json").write_text(json.dumps(left))
        with pytest.raises(UserError, match=f"result.json is damaged.*{key}"):
            loop.train(config, str(tmp_path))


def test_a_finished_run_is_left_as_it_is(finished, capsys):
    config, workdir, result = finished
    assert loop.train(config, workdir) == result
    assert "finished" in capsys.readouterr().out


def test_another_config_is_refused_by_name(finished):
    _, workdir, _ = finished
    config = small_config(**{"log.tensorboard": True, "optim.learning_rate": 0.2})
    with pytest.raises(UserError, match="optim.learning_rate is 0.1 there, 0.2 here"):
        loop.train(config, workdir)


def test_a_stopped_run_continues_bit_for_bit(finished, tmp_path, monkeypatch):
    _, workdir, _ = finished
    config = small_config(**{"checkpoint.every_epochs": 0.25})
    every = make_timeline(config, 1438, 1).checkpoint_every
    monkeypatch.setattr(Experiment, "evaluate", stop_instead)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, str(tmp_path))
    monkeypatch.undo()
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert checkpoints.latest_step == 30 // every * every
    loop.train(config, str(tmp_path))
    like = Experiment(config).abstract_state
    states = []
    for directory in (workdir, str(tmp_path)):
        with Checkpoints(directory) as checkpoints:
            states.append(checkpoints.restore(like))
    jax.tree.map(np.testing.assert_array_equal, *states)


def stop_instead(experiment, state):
    raise KeyboardInterrupt


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = small_config(
        **{
            "optim.agc.clipping": 0.0,
            "optim.learning_rate": 1e6,
            "log.gradient_ratios": True,
            "log.every_steps": 1,
        }
    )
    with pytest.raises(UserError, match=r"step \d+: the loss is .*optim.agc") as error:
        loop.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "result.json").exists()
    with open(tmp_path / "run" / "metrics.jsonl") as file:
        rows = [json.loads(line) for line in file]
    ratios = [row for row in rows if "gradient_ratio/stem/kernel" in row]
    assert ratios and not any("train/clip_fraction" in row for row in rows)
    step, ratio, layer = re.search(
        r"norm at step (\d+) was (\S+), of (\S+)", str(error.value)
    ).groups()
    assert f"gradient_ratio/{layer}" in ratios[0]
    recorded = {row["step"]: row for row in ratios}
    if int(step) in recorded:
        largest = max(v for k, v in recorded[int(step)].items() if k != "step")
        assert float(ratio) == pytest.approx(largest, rel=1e-2)


def test_the_peak_rate_follows_the_batch_where_it_has_a_base():
    config = small_config(**{"data.batch_size": 1024, "optim.learning_rate": 0.1})
    assert make_timeline(config, 5000, 1).peak_rate == 0.1
    config.optim.base_batch_size = 256
    assert make_timeline(config, 5000, 1).peak_rate == 0.4


def test_the_ascent_of_sam_counts_as_work():
    config = small_config(**{"optim.sam.fraction": 0.25})
    assert differentiated_examples(config) == 32
    config.optim.sam.rho = 0.05
    assert differentiated_examples(config) == 40


def test_epochs_need_not_be_whole_batches():
    config = small_config(**{"train.epochs": 2.5, "eval.every_epochs": 1.0})
    config.train.steps = None
    plan = make_timeline(config, train_examples=100, devices=1)
    assert (plan.steps, plan.eval_every) == (8, 3)
    assert plan.checkpoint_every == plan.steps
