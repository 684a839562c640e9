"""Cells, retries and table of scripts/compile_matrix.py, without any compiler."""

import json
import pathlib
import runpy

import pytest
from pages import REPOSITORY

from nfnet_jax.config import load
from nfnet_jax.planning.target import parse_target

SCRIPT = runpy.run_path(str(REPOSITORY / "scripts/compile_matrix.py"))
Cell, CELLS = SCRIPT["Cell"], SCRIPT["cells"]()


def test_every_config_is_a_cell_of_every_target():
    files = {path.name for path in (REPOSITORY / "configs").glob("*.py")}
    assert {config.partition(":")[0] for config in SCRIPT["CONFIGS"]} == files
    names = {cell.name for cell in CELLS}
    assert len(names) == len(CELLS)
    for config in SCRIPT["CONFIGS"]:
        load(str(REPOSITORY / "configs" / config))
        for target in SCRIPT["TARGETS"]:
            assert f"{config} {target}" in names
    for cell in CELLS:
        parse_target(cell.target)


@pytest.fixture
def result():
    step = {
        "needed": 2e9,
        "temporary": 1e9,
        "cycles": 1_500_000,
        "seconds": 1e-3,
        "examples_per_second": 64_000,
        "peak_share": 0.5,
        "kernels": None,
        "collectives": {"all-reduce": 5e5},
    }
    return {
        "command": "python -m nfnet_jax.plan",
        "tried": ["too large"],
        "plan": {
            "fits": True,
            "batch_size": 64,
            "memory": 16e9,
            "training": step,
            "versions": {"jax": "0.10.2"},
            "remedies": [],
        },
    }


def test_the_table_has_numbers_or_the_reason(result):
    text = SCRIPT["table"](
        {"a.py v5e:1x1": result, "b.py v5e:1x1": {"error": "one | two", "tried": []}}
    )
    first, second = text.splitlines()[-2:]
    assert first == (
        "| a.py | v5e:1x1 |  | 64 | 2 GB | 1 GB | 16 GB | yes, after 1 larger "
        "| 1.5 | 1 ms | 64000 | 50.0 % |  | 500 kB |"
    )
    assert "| one / two |" in second
    assert first.count("|") == second.count("|") == len(SCRIPT["COLUMNS"]) + 1


def test_a_batch_that_does_not_fit_is_replaced_by_the_proposed_one(result, monkeypatch):
    batches = []

    def plan(cell, batch, python):
        batches.append(batch)
        fits = len(batches) == 2
        remedies = ["--config.train.remat=block", "--config.data.batch_size=8"]
        found = result["plan"] | {"fits": fits, "remedies": remedies}
        return {"plan": found} | ({} if fits else {"error": "does not fit"})

    compile_cell = SCRIPT["compile_cell"]
    monkeypatch.setitem(compile_cell.__globals__, "plan", plan)
    found = compile_cell(CELLS[0], "python")
    assert batches == [(), ("--config.data.batch_size=8",)]
    assert found["plan"]["fits"] and found["tried"] == ["does not fit"]


def test_results_are_kept_for_the_next_time(result, tmp_path):
    folder: pathlib.Path = tmp_path / "accelerators"
    SCRIPT["Matrix"](folder).add(CELLS[0], result)
    assert SCRIPT["Matrix"](folder).results == {CELLS[0].name: result}
    assert json.loads((folder / "matrix.json").read_text())
    assert CELLS[0].config in (folder / "matrix.md").read_text()
