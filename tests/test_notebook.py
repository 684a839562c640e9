"""scripts/colab.ipynb runs from top to bottom, without CIFAR-10."""

import importlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import types

import nbformat
import pytest
from nbclient import NotebookClient
from pages import REPOSITORY

from nfnet_jax import cli

NOTEBOOK = REPOSITORY / "scripts" / "colab.ipynb"


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
        argv = ["train.py", "--config", config, *shlex.split("--workdir runs/cifar10")]
        assert (
            cli.parse(argv, "", config="needed", workdir="").config.data.name
            == "tfds:cifar10"
        )


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


class Shell:
    """Stands in for IPython: runs the install cell, whose commands it only notes.

    `clones`: whether `git clone` leaves something.
    """

    def __init__(self, source: str, *, clones: bool = True):
        self.commands: list[str] = []
        self._clones = clones
        magic = re.compile(r"^( *)[!%](.*)$", re.MULTILINE)
        self._code = magic.sub(lambda m: f"{m[1]}run(f{m[2]!r})", source)

    def run(self, command: str) -> None:
        self.commands.append(command)
        if command.startswith("git clone") and self._clones:
            config = pathlib.Path("nfnet_jax/configs/digits.py")
            config.parent.mkdir(parents=True)
            config.touch()
        if command.startswith("cd "):
            os.chdir(command.removeprefix("cd "))

    def start(self, repository: str) -> None:
        exec(self._code, {"run": self.run, "REPOSITORY": repository})


@pytest.fixture
def install(notebook, tmp_path, monkeypatch):
    """The source of the cell, in an empty directory on a machine without flax."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: types.SimpleNamespace(returncode=1)
    )
    (cell,) = [cell for cell in notebook.cells if cell.id == "install"]
    return cell.source


def test_the_placeholder_ends_in_one_sentence(install):
    shell = Shell(install)
    with pytest.raises(Exception, match="Set REPOSITORY") as stop:
        shell.start("URL_OF_THIS_REPOSITORY")
    (line,) = stop.value._render_traceback_()
    assert line.count("\n") == 0 and shell.commands == []


def test_an_address_that_cannot_be_cloned_ends_in_one_sentence(install):
    shell = Shell(install, clones=False)
    with pytest.raises(Exception, match="https://nowhere cannot be cloned"):
        shell.start("https://nowhere")
    assert [c.split()[0] for c in shell.commands] == ["git"]


def test_a_clone_is_no_installation_and_the_cell_runs_twice(
    install, tmp_path, monkeypatch
):
    """After "Restart session" the kernel is where it began, beside the clone."""
    first = Shell(install)
    first.start("https://somewhere")
    assert [c.split()[0] for c in first.commands] == ["git", "cd", "pip", "python"]
    again = Shell(install)
    again.start("https://somewhere")
    assert [c.split()[0] for c in again.commands] == ["pip", "python"]
    monkeypatch.chdir(tmp_path)
    restarted = Shell(install)
    restarted.start("https://somewhere")
    assert [c.split()[0] for c in restarted.commands] == ["cd", "pip", "python"]
    assert pathlib.Path.cwd().name == "nfnet_jax"
    done = types.SimpleNamespace(returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    installed = Shell(install)
    installed.start("https://somewhere")
    assert [c.split()[0] for c in installed.commands] == ["python"]


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
