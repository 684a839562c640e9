"""Whole runs on digits: what they leave, that they learn, how long they are."""

import json
import pathlib
import re
import shutil

import pytest
from tiny_run import UNDISTURBED, metric_rows, tiny_config

from nfnet_jax.config import to_json
from nfnet_jax.training import loop
from nfnet_jax.training.timeline import differentiated_examples, make_timeline
from nfnet_jax.training.trained import score_checkpoint
from nfnet_jax.training.workdir import read_result
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


@pytest.fixture
def result(undisturbed):
    return read_result(str(undisturbed))


def test_result_has_its_keys(result):
    assert result.keys() == RESULT_KEYS
    assert result["config"] == to_json(tiny_config(**UNDISTURBED))
    assert result["train_flops"] == 2 * 3 * result["multiply_adds"] * 16 * 16
    assert result["parameters"] == 78_045
    assert 0.2 < result["test_accuracy"] <= 1


def test_metrics_are_rows_in_order(undisturbed, result):
    rows = metric_rows(undisturbed)
    train = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in train] == [*range(1, 17)]
    assert all(0 <= row["train/clip_fraction"] <= 1 for row in train)
    assert rows[-1]["test/accuracy"] == result["test_accuracy"]


def test_last_checkpoint_scores_what_the_result_says(undisturbed, result):
    scores = score_checkpoint(tiny_config(**UNDISTURBED), str(undisturbed))
    assert scores["step"] == 16
    assert scores["accuracy"] == result["test_accuracy"]
    assert scores["accuracy_ema"] == result["test_accuracy_ema"]


def test_a_result_that_lacks_its_scores_is_damaged(undisturbed, result, tmp_path):
    for name in ("config.json", "data.json"):
        shutil.copy(undisturbed / name, tmp_path)
    for key in ("test_accuracy", "images_per_second"):
        left = {name: value for name, value in result.items() if name != key}
        (tmp_path / "result.json").write_text(json.dumps(left))
        with pytest.raises(UserError, match=f"result.json is damaged.*{key}"):
            loop.train(tiny_config(**UNDISTURBED), str(tmp_path))


def test_a_finished_run_is_left_as_it_is(undisturbed, result, capsys):
    assert loop.train(tiny_config(**UNDISTURBED), str(undisturbed)) == result
    assert "finished" in capsys.readouterr().out


# LAMB's moments are optax's.
@pytest.mark.promotes
@pytest.mark.parametrize(
    "changes",
    [
        {"optim.name": "lamb", "optim.learning_rate": 0.02},
        {"optim.sam.rho": 0.05, "optim.sam.fraction": 0.5},
    ],
    ids=["lamb", "sam"],
)
def test_the_loss_falls(tmp_path, changes):
    options = {"data.batch_size": 32, "optim.ema_decay": 0.0, "log.every_steps": 12}
    schedule = {"optim.schedule.name": "cosine", "optim.schedule.warmup_epochs": 0.1}
    changes = {"optim.learning_rate": 0.1} | changes
    config = tiny_config(**options, **schedule, **changes, **{"train.steps": 50})
    result = loop.train(config, str(tmp_path))
    rows = [row for row in metric_rows(tmp_path) if "train/loss" in row]
    assert [row["step"] for row in rows] == [12, 24, 36, 48, 50]
    assert rows[-1]["train/loss"] < 0.4 * rows[0]["train/loss"]
    # Of ten classes, after a pass.
    assert result["test_accuracy"] > 0.7


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    agc = {"optim.agc.clipping": 0.0, "log.gradient_ratios": True}
    config = tiny_config(**{"optim.learning_rate": 1e6}, **agc)
    with pytest.raises(UserError, match=r"step \d+: the loss is .*optim.agc") as error:
        loop.train(config, str(tmp_path))
    assert not pathlib.Path(tmp_path, "result.json").exists()
    rows = metric_rows(tmp_path)
    ratios = [row for row in rows if "gradient_ratio/stem/kernel" in row]
    assert ratios and not any("train/clip_fraction" in row for row in rows)
    step, ratio, layer = re.search(
        r"norm at step (\d+) was (\S+), of (\S+)", str(error.value)
    ).groups()
    assert f"gradient_ratio/{layer}" in ratios[0]
    recorded = {row.pop("step"): row for row in ratios}
    if int(step) in recorded:
        largest = max(recorded[int(step)].values())
        assert float(ratio) == pytest.approx(largest, rel=1e-2)


# --- Timelines ------------------------------------------------------------------------


def test_the_peak_rate_follows_the_batch_where_it_has_a_base():
    config = tiny_config(**{"data.batch_size": 1024, "optim.learning_rate": 0.1})
    assert make_timeline(config, 5000, 1).peak_rate == 0.1
    config.optim.base_batch_size = 256
    assert make_timeline(config, 5000, 1).peak_rate == 0.4


def test_the_ascent_of_sam_counts_as_work():
    config = tiny_config(**{"optim.sam.fraction": 0.25})
    assert differentiated_examples(config) == 16
    config.optim.sam.rho = 0.05
    assert differentiated_examples(config) == 20


def test_epochs_need_not_be_whole_batches():
    epochs = {"train.epochs": 2.5, "eval.every_epochs": 1.0, "data.batch_size": 32}
    config = tiny_config(**epochs)
    config.train.steps = None
    plan = make_timeline(config, train_examples=100, devices=1)
    assert (plan.steps, plan.eval_every) == (8, 3)
    assert plan.checkpoint_every == plan.steps
