"""scripts/colab.ipynb runs from top to bottom, without CIFAR-10."""

import importlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import types

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement
from pages import REPOSITORY

from nfnet_jax import cli

NOTEBOOK = REPOSITORY / "scripts" / "colab.ipynb"
COLAB = {
    "absl-py": ["1.4.0"],
    "array_record": ["0.8.3"],
    "chex": ["0.1.90"],
    "flatbuffers": ["25.12.19"],
    "flax": ["0.11.2"],
    "grain": ["0.2.18"],
    "jax": ["0.7.2"],
    "jaxlib": ["0.7.2"],
    "jinja2": ["3.1.6"],
    "markupsafe": ["3.0.3"],
    "matplotlib": ["3.10.0"],
    "numpy": ["2.1.3"],
    "optax": ["0.2.8"],
    "orbax-checkpoint": ["0.12.4"],
    "pillow": ["11.3.0", "12.3.0"],
    "safetensors": ["0.8.0"],
    "scikit-learn": ["1.6.1"],
    "scipy": ["1.16.3"],
    "tensorflow-datasets": ["4.9.10"],
    "tqdm": ["4.67.3"],
}
"""Versions in Colab's images for CPU, GPU and TPU, Python 3.13, of 2026-08-19:
https://github.com/googlecolab/backend-info"""


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_valid_and_has_no_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 8
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None


def test_cifar_flags_are_valid(notebook, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    (cell,) = [cell for cell in notebook.cells if cell.id == "parameters"]
    for config in re.findall(r"configs/[\w.:]+", cell.source):
        flags = cli.parse(["train.py", "--config", config], "", config="needed")
        assert flags.config.data.name == "tfds:cifar10"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The working directory of a user, with this Python before others."""
    for name in ("configs", "docs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    folder = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))
    # A training is as long as it is compiled well.
    monkeypatch.delenv("XLA_FLAGS")
    return tmp_path


@pytest.fixture
def install(notebook, tmp_path, monkeypatch):
    """install(address, words) runs the cell in an empty directory without flax.

    Shell commands only add their first words to `words`, which it returns. Of the
    address https://nowhere, `git clone` leaves nothing.
    """
    monkeypatch.chdir(tmp_path)
    absent = types.SimpleNamespace(returncode=1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: absent)
    (cell,) = [cell for cell in notebook.cells if cell.id == "install"]
    magic = re.compile(r"^( *)[!%](.*)$", re.MULTILINE)
    code = magic.sub(lambda m: f"{m[1]}run(f{m[2]!r})", cell.source)

    def install(address: str, words: list[str]) -> list[str]:
        def run(command: str) -> None:
            words.append(command.split()[0])
            if words[-1] == "git" and address != "https://nowhere":
                config = pathlib.Path("nfnet_jax/configs/digits.py")
                config.parent.mkdir(parents=True)
                config.touch()
            if words[-1] == "cd":
                os.chdir(command.removeprefix("cd "))

        exec(code, {"run": run, "REPOSITORY": address})
        return words

    return install


@pytest.mark.parametrize(
    ("address", "message", "commands"),
    [
        ("URL_OF_THIS_REPOSITORY", "Set REPOSITORY", []),
        ("https://nowhere", "https://nowhere cannot be cloned", ["git"]),
    ],
)
def test_no_clone_ends_in_one_line(address, message, commands, install):
    words: list[str] = []
    with pytest.raises(Exception, match=message) as stop:
        install(address, words)
    (line,) = stop.value._render_traceback_()
    assert line.count("\n") == 0 and words == commands


def test_a_clone_is_no_installation_and_the_cell_runs_twice(
    install, tmp_path, monkeypatch
):
    """After "Restart session" the kernel is where it began, beside the clone."""
    assert install("https://somewhere", []) == ["git", "cd", "pip", "python"]
    assert install("https://somewhere", []) == ["pip", "python"]
    monkeypatch.chdir(tmp_path)
    assert install("https://somewhere", []) == ["cd", "pip", "python"]
    assert pathlib.Path.cwd().name == "nfnet_jax"
    done = types.SimpleNamespace(returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert install("https://somewhere", []) == ["python"]


def test_no_package_of_colab_is_replaced():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    bounds = {
        requirement.name: requirement.specifier
        for requirement in map(Requirement, project["project"]["dependencies"])
    }
    for name, versions in COLAB.items():
        assert all(version in bounds[name] for version in versions), name


def printed(cells, name: str) -> str:
    (cell,) = [cell for cell in cells if cell.id == name]
    streams = (out.text for out in cell.outputs if out.output_type == "stream")
    return "".join(streams).replace("\r\n", "\n")


def test_commands_are_of_this_package(notebook):
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    names = re.findall(r"python -m (nfnet_jax\.\w+)", code)
    assert {importlib.import_module(name).main for name in names}


@pytest.mark.slow
def test_it_runs(notebook, checkout: pathlib.Path):
    for cell in notebook.cells:
        if cell.id == "parameters":
            cell.source += "\nCIFAR = None"
    where = {"metadata": {"path": str(checkout)}}
    NotebookClient(notebook, timeout=900, resources=where).execute()
    cells = notebook.cells
    assert "pip" not in printed(cells, "install")
    assert "CpuDevice" in printed(cells, "install")
    accuracy = re.search(r"test accuracy ([\d.]+)%", printed(cells, "digits"))
    assert float(accuracy[1]) >= 98
    assert "stages_2/blocks" in printed(cells, "signal")
    assert re.search(r"digit\.png\n +\d+\.\d+%  7\n", printed(cells, "predict"))
    assert "step 1 completed" in printed(cells, "stop")
    assert re.search(r"continuing from step \d+ of", printed(cells, "resume"))
    assert "test accuracy" in printed(cells, "resume")
    pictures = [
        output
        for cell in cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3
