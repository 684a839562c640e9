"""JSON that leaves this package is JSON by the standard, and null is read again."""

import ast
import json
import math
import pathlib
import shutil
from types import SimpleNamespace

import optuna
import pytest

import nfnet_jax
from nfnet_jax import train
from nfnet_jax.reports import tables
from nfnet_jax.reports.measured import Measured
from nfnet_jax.reports.page import make_page
from nfnet_jax.reports.record import read_records
from nfnet_jax.sweeps import trial
from nfnet_jax.training.checkpoint import best_step
from nfnet_jax.training.checkpoint.manifest import read_facts, seal, verify
from nfnet_jax.utils import strict_json

PACKAGE = pathlib.Path(nfnet_jax.__file__).parent


def strictly(text: str):
    """Reads JSON, refusing NaN and infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_null():
    values = {"a": math.nan, "b": [1.5, -math.inf, {"c": (math.inf, "x")}], "d": 1}
    expected = {"a": None, "b": [1.5, None, {"c": [None, "x"]}], "d": 1}
    assert strictly(strict_json.dumps(values, indent=2)) == expected
    assert strict_json.loads("[NaN, -Infinity, 1e999]") == [None, None, None]


def test_no_other_module_writes_json():
    """Text that is only hashed is the exception."""
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef) or path.stem == "strict_json":
                continue
            body = ast.get_source_segment(source, node)
            assert "json.dump" not in body.replace("strict_json.dump", "") or (
                "sha256" in body
            ), f"{path}: {node.name}"


@pytest.fixture(scope="module")
def one_step(tmp_path_factory):
    """The work directory of a run of one step, which has no rate."""
    workdir = tmp_path_factory.mktemp("runs") / "one"
    config = workdir.parent / "one.py"
    config.write_text("from tiny_run import tiny_config as get_config\n")
    flags = [f"--config={config}", f"--workdir={workdir}", "--config.train.steps=1"]
    flags += ["--config.data.eval_split=test[:16]", "--config.data.eval_batch_size=16"]
    return workdir, ["train.py", *flags]


def test_a_run_of_one_step_has_a_result(one_step, capsys):
    workdir, argv = one_step
    train.main(argv)
    result = strictly((workdir / "result.json").read_text())
    assert result["images_per_second"] is None and result["steps"] == 1
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        strictly(line)
    train.main(argv)
    told = capsys.readouterr().out
    assert told.count("test accuracy ") == 2 and "nan" not in told


def test_a_report_shows_null_as_unknown(one_step, tmp_path):
    """Files of older versions hold NaN."""
    workdir, _ = one_step
    result = json.loads((workdir / "result.json").read_text())
    unsure = {k: None if isinstance(v, float) else v for k, v in result.items()}
    unknown = {"step": 5, "epoch": None, "test/loss": None, "test/accuracy": 1}
    rows = f'{json.dumps(unknown)}\n{{"step": 9, "test/loss": 2.5}}\n'
    for name in ("null", "NaN"):
        (tmp_path / name).mkdir()
        shutil.copy(workdir / "config.json", tmp_path / name)
        texts = {"result.json": json.dumps(unsure), "metrics.jsonl": rows}
        for file, text in texts.items():
            (tmp_path / name / file).write_text(text.replace("null", name))
    records = read_records([str(tmp_path / "null"), str(tmp_path / "NaN")])
    for record in records:
        assert record.unreadable == 0 and record.last_step == 9
        assert tables.test_loss(record, Measured()) == 2.5
    page = make_page(records, [Measured(), Measured()])
    text = page[page.index("<body") :]
    assert ">nan" not in text and "nan " not in text and ">None<" not in text


@pytest.fixture
def train_trial(tmp_path, monkeypatch):
    """train_trial(loss, ...): a training of a sweep that left such evaluations."""
    asked = optuna.create_study(pruner=optuna.pruners.MedianPruner()).ask()

    def hopeless(step, value):
        asked.report(value, step)
        return False

    def train_trial(*values: str) -> float:
        rows = [f'{{"step": {i}, "test/loss": {v}}}\n' for i, v in enumerate(values)]
        (tmp_path / "0000").mkdir()
        (tmp_path / "0000" / "metrics.jsonl").write_text("".join(rows))
        done = SimpleNamespace(returncode=0, poll=lambda: 0, wait=lambda: 0)
        monkeypatch.setattr(trial.subprocess, "Popen", lambda *_, **__: done)
        return trial.train([], tmp_path / "0000", "loss", hopeless)

    return train_trial


@pytest.mark.parametrize("last", ["null", "NaN", "Infinity"])
def test_a_trial_that_ends_without_a_number_has_failed(last, train_trial):
    with pytest.raises(trial.Failed, match="the last loss is not finite"):
        train_trial("1.5", last)


def test_a_trial_may_pass_through_what_is_not_finite(train_trial):
    assert train_trial("null", "1.5") == 1.5


def test_a_checkpoint_with_a_loss_that_is_not_finite_is_sound(tmp_path):
    (tmp_path / "data").write_text("x")
    seal(str(tmp_path), step=3, scores={"loss": math.nan, "accuracy": 0.1})
    for path in tmp_path.iterdir():
        if path.name != "data":
            strictly(path.read_text())
    verify(str(tmp_path), step=3)
    scores = {3: read_facts(str(tmp_path))["scores"], 4: {"loss": 2.0}}
    assert best_step(scores, "loss") == 4
