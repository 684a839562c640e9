"""JSON that leaves this package is JSON by the standard, and null is read again."""

import ast
import json
import math
import pathlib

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
    written = strict_json.dumps(values, indent=2)
    assert strictly(written) == {
        "a": None,
        "b": [1.5, None, {"c": [None, "x"]}],
        "d": 1,
    }
    assert strict_json.loads('{"a": NaN, "b": -Infinity, "c": 1e999}') == {
        "a": None,
        "b": None,
        "c": None,
    }


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
    config.write_text(
        "from tiny_run import tiny_config\n\n\n"
        "def get_config():\n    return tiny_config(**{'train.steps': 1, "
        "'data.eval_split': 'test[:16]', 'data.eval_batch_size': 16})\n"
    )
    return workdir, ["train.py", f"--config={config}", f"--workdir={workdir}"]


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
    for name, unknown in (("new", "null"), ("old", "NaN")):
        place = tmp_path / name
        place.mkdir()
        (place / "config.json").write_text((workdir / "config.json").read_text())
        unsure = {
            k: "?" if isinstance(v, float | None) else v for k, v in result.items()
        }
        values = json.dumps(unsure).replace('"?"', unknown)
        (place / "result.json").write_text(values)
        row = json.dumps(
            {"step": 5, "epoch": "?", "test/loss": "?", "test/accuracy": 1}
        )
        rows = [row.replace('"?"', unknown), '{"step": 9, "test/loss": 2.5}', ""]
        (place / "metrics.jsonl").write_text("\n".join(rows))
    records = read_records([str(tmp_path / "new"), str(tmp_path / "old")])
    for record in records:
        assert record.unreadable == 0 and record.last_step == 9
        assert tables.test_loss(record, Measured()) == 2.5
    page = make_page(records, [Measured(), Measured()])
    text = page[page.index("<body") :]
    assert ">nan" not in text and "nan " not in text and ">None<" not in text


def _evaluations(
    tmp_path, monkeypatch, *values: str, hopeless=lambda step, value: False
):
    """A training of a sweep that left evaluations with these losses."""
    rows = [f'{{"step": {i}, "test/loss": {v}}}\n' for i, v in enumerate(values)]

    class Process:
        returncode = 0

        def __init__(self, *_, **__):
            (tmp_path / "0000").mkdir(exist_ok=True)
            (tmp_path / "0000" / "metrics.jsonl").write_text("".join(rows))

        def poll(self):
            return 0

        def wait(self):
            return 0

    monkeypatch.setattr(trial.subprocess, "Popen", Process)
    return trial.train([], tmp_path / "0000", "loss", hopeless)


@pytest.mark.parametrize("last", ["null", "NaN", "Infinity"])
def test_a_trial_that_ends_without_a_number_has_failed(last, tmp_path, monkeypatch):
    with pytest.raises(trial.Failed, match="the last loss is not finite"):
        _evaluations(tmp_path, monkeypatch, "1.5", last)


def test_a_trial_may_pass_through_what_is_not_finite(tmp_path, monkeypatch):
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner())
    asked = study.ask()

    def hopeless(step, value):
        asked.report(value, step)
        return False

    found = _evaluations(tmp_path, monkeypatch, "null", "1.5", hopeless=hopeless)
    assert found == 1.5


def test_a_checkpoint_with_a_loss_that_is_not_finite_is_sound(tmp_path):
    (tmp_path / "data").write_text("x")
    seal(str(tmp_path), step=3, scores={"loss": math.nan, "accuracy": 0.1})
    for path in tmp_path.iterdir():
        if path.name != "data":
            strictly(path.read_text())
    verify(str(tmp_path), step=3)
    scores = {3: read_facts(str(tmp_path))["scores"], 4: {"loss": 2.0}}
    assert best_step(scores, "loss") == 4
