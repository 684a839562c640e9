"""Experiments run from end to end, tiny."""

import ast
import importlib
import json
import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
EXPERIMENTS = (
    "signal_propagation.run",
    "beta.run",
    "pooled_shortcuts.run",
    "original_network.deviations",
    "depth.run",
    "batch_size_and_agc.run",
    "independence.run",
    "small_data.run",
    "weight_standardization.run",
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_quick(name, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(REPOSITORY)
    main = importlib.import_module(f"experiments.{name}").main
    main(["--quick", f"--output={tmp_path}"])
    (found,) = tmp_path.glob("*.json")
    results = json.loads(found.read_text())
    assert len(results) >= 2
    (figure,) = tmp_path.glob("*.png")
    drawn = figure.stat().st_mtime_ns
    main(["--quick", f"--output={tmp_path}"])
    assert json.loads(found.read_text()) == results
    assert figure.stat().st_mtime_ns > drawn


@pytest.mark.parametrize("folder", ["experiments", "scripts", "examples", "configs"])
def test_what_is_imported_is_there(folder):
    """Imports of scripts that are too long to run here are checked too."""
    imported = [
        (module, name.name)
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (module := node.module or "").split(".")[0] == "nfnet_jax"
        for name in node.names
    ]
    assert imported
    for module, name in imported:
        try:
            found = hasattr(importlib.import_module(module), name)
            found = found or importlib.import_module(f"{module}.{name}")
        except ImportError as error:
            # Missing of this project, or of what an extra would bring.
            found = not error.name.startswith("nfnet_jax")
        assert found, f"{module} has no {name}"
