"""The files of a run, as a crash or a resumed run leaves them."""

import json

import numpy as np

from nfnet_jax.config import base_config, to_json
from nfnet_jax.reports.record import read_records


def make_run(folder, *lines: str):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_json(base_config())))
    (folder / "metrics.jsonl").write_text("".join(lines))
    return str(folder)


def row(step: int, **values: float) -> str:
    return json.dumps({"step": step} | values) + "\n"


def test_steps_that_were_done_again_count_once(tmp_path):
    workdir = make_run(
        tmp_path / "run",
        row(10, loss=3.0, epoch=0.5),
        row(20, loss=2.0, epoch=1.0),
        row(20, accuracy=0.1),
        row(30, loss=9.0, epoch=1.5),
        row(20, loss=1.0, epoch=1.0),
        row(40, accuracy=0.2),
    )
    (record,) = read_records([workdir])
    loss = record.metrics["loss"]
    assert loss.steps.tolist() == [10, 20, 30]
    assert loss.values.tolist() == [3.0, 1.0, 9.0] and loss.last == 9.0
    assert record.metrics.keys() == {"loss", "accuracy"}
    assert record.last_step == 40 and record.steps_per_epoch == 20
    assert record.epochs(loss.steps).tolist() == [0.5, 1.0, 1.5]
    assert record.unreadable == 0 and record.result is None


def test_lines_that_make_no_sense_are_counted(tmp_path):
    workdir = make_run(
        tmp_path / "run",
        row(1, loss=1.0),
        '{"step": 2, "lo{"step": 3}\n',
        "[]\n",
        '{"loss": 1.0}\n',
        '{"step": 4, "loss": "high"}\n',
        '{"step": 5, "loss": NaN}\n',
        '{"step": 6, "loss": 2',
    )
    (record,) = read_records([workdir])
    assert record.unreadable == 4
    assert record.metrics["loss"].steps.tolist() == [1, 5]
    assert np.isnan(record.metrics["loss"].last)


def test_a_run_that_has_only_begun(tmp_path):
    workdir = make_run(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (record,) = read_records([workdir])
    assert record.metrics == {} and record.last_step == 0
    assert record.keys["optim.learning_rate"] == 0.1


def test_names_are_as_short_as_will_do(tmp_path):
    paths = [make_run(tmp_path / name) for name in ("a/run", "b/run", "b/other")]
    assert [r.name for r in read_records(paths[1:])] == ["run", "other"]
    assert [r.name for r in read_records(paths)] == paths
    assert [r.name for r in read_records([f"{paths[0]}/"])] == ["run"]
