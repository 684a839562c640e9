"""Experiments run from end to end, tiny."""

import importlib
import json
import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["signal_propagation", "beta", "pooled_shortcuts"])
def test_quick(name, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(REPOSITORY)
    main = importlib.import_module(f"experiments.{name}.run").main
    main(["--quick", f"--output={tmp_path}"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) >= 2
    (figure,) = tmp_path.glob("*.png")
    drawn = figure.stat().st_mtime_ns
    main(["--quick", f"--output={tmp_path}"])
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert figure.stat().st_mtime_ns > drawn
