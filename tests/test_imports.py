"""Who may import whom: entry points > {training, analysis, interop} >
{models, optim, data} > layers, and nobody sideways."""

import ast
import pathlib
import subprocess
import sys

import pytest

import nfnet_jax

PACKAGE = pathlib.Path(nfnet_jax.__file__).parent
ENTRY_POINTS = (
    "train",
    "evaluate",
    "predict",
    "export",
    "plan",
    "analyze",
    "sweep",
    "config/__main__",
    "report",
    "data/__main__",
    "models/__main__",
    "sweeps/trial",
)
UPPER = ("training", "analysis", "interop")
LOWER = ("models", "optim", "data")
LEAVES = {
    "errors",
    "cache",
    "download",
    "host_memory",
    "paths",
    "strict_json",
    "workers",
}
LIBRARY = {*LOWER, "layers", *LEAVES}

ALLOWED: dict[str, set[str]] = {
    **{
        part: {
            *UPPER,
            *LIBRARY,
            "config",
            "config_keys",
            "cli",
            "help",
            "sweeps",
            "reports",
        }
        for part in ENTRY_POINTS
    },
    "sweeps/trial": {"workers", "cli", "strict_json", "train"},
    "sweeps": {"config", "config_keys", "errors", "paths", "strict_json", "workers"},
    # Above them: a report shows what training left and analysis measures.
    "reports": {
        "training",
        "analysis",
        *LIBRARY,
        "config",
        "config_keys",
        "__version__",
    },
    **dict.fromkeys(UPPER, LIBRARY),
    "training": LIBRARY | {"config", "config_keys"},
    **dict.fromkeys(LOWER, {"layers", *LEAVES}),
    "layers": set(),
    "cli": {
        "config",
        "config_file",
        "errors",
        "cache",
        "help",
        "host_memory",
        "paths",
    },
    "config_file": {"config", "errors", "paths"},
    "help": {"config", "config_keys"},
    "config": {"config_keys", "errors", "cache"},
    "config_keys": {"paths"},
    "recipes": {"config"},
    "download": {"errors"},
    "errors": set(),
    "paths": {"errors"},
    "strict_json": set(),
    "cache": {"paths"},
    "host_memory": set(),
    "workers": set(),
    # For type checkers; what is imported when is tested below.
    "__init__": {"interop", *LOWER, "layers"},
}
"""What the modules of a part import besides those of the same part."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def imported_parts(path: pathlib.Path) -> set[str]:
    """First components below nfnet_jax of all that a file imports, at any depth."""
    package = ("nfnet_jax", *path.relative_to(PACKAGE).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *([node.module] if node.module else [])))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "nfnet_jax" and len(part) > 1}


def part_of(path: pathlib.Path) -> str:
    name = path.relative_to(PACKAGE).with_suffix("").as_posix()
    return name if name in ENTRY_POINTS else name.split("/")[0]


def test_every_part_has_a_rule():
    assert {part_of(path) for path in MODULES} == ALLOWED.keys()


@pytest.mark.parametrize(
    "path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES]
)
def test_imports_go_downward(path):
    part = part_of(path)
    assert imported_parts(path) <= ALLOWED[part] | {part}


@pytest.mark.parametrize(
    ("where", "line", "found"),
    [
        ("models/a.py", "from nfnet_jax.training.loop import train", "training"),
        ("models/a.py", "from nfnet_jax import training", "training"),
        ("models/a.py", "import nfnet_jax.data.order", "data"),
        ("models/a.py", "from ..optim import tree", "optim"),
        ("models/a.py", "from .. import cli", "cli"),
        ("models/a.py", "def f():\n    import nfnet_jax.train", "train"),
    ],
)
def test_the_parser_sees_every_form(where, line, found, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / where).parent.mkdir()
    (tmp_path / where).write_text(line)
    assert imported_parts(tmp_path / where) == {found}


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        *(
            (f"import {names}", {"jax", "flax", "tensorflow_datasets", "sklearn"})
            for names in (
                "nfnet_jax",
                "nfnet_jax.cli, nfnet_jax.train, nfnet_jax.evaluate",
                "nfnet_jax.predict, nfnet_jax.export, nfnet_jax.analyze",
                "nfnet_jax.report",
            )
        ),
        ("import nfnet_jax.training.loop", {"orbax.checkpoint", "scipy"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement, heavy):
    script = f"import sys; {statement}; print({heavy} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
