"""Floors: a package imports lower ones and itself, in no circle."""

import ast
import pathlib
import subprocess
import sys

import pytest

import nfnet_jax

PACKAGE = pathlib.Path(nfnet_jax.__file__).parent
FLOORS = (
    {"utils"},
    {"ops"},
    {"layers"},
    {"config", "data", "models", "optim"},
    {"weights"},
    {"training"},
    {"analysis", "inference", "planning"},
    {"reports", "sweeps"},
)
"""From the ground up. Packages of one floor do not import each other. Above them are
the commands: the modules of the top level, and every `__main__`."""
HEIGHT = {part: height for height, floor in enumerate(FLOORS) for part in floor}
MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: pathlib.Path) -> str:
    """The dotted name of a file of the package: `nfnet_jax.models.stage`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: pathlib.Path) -> list[tuple[str, str]]:
    """(module, name or "") of all that a file imports from here, at any depth."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *([node.module] if node.module else [])))
            found += [(base, alias.name) for alias in node.names]
    return [(base, name) for base, name in found if base.split(".")[0] == "nfnet_jax"]


def imported_modules(path: pathlib.Path) -> set[str]:
    """The files of the package that a file imports, by their dotted names."""
    known = set(map(module_name, PACKAGE.rglob("*.py")))
    found = {
        f"{base}.{name}" if f"{base}.{name}" in known else base
        for base, name in imports(path)
    }
    return found - {module_name(path)}


def is_command(name: str) -> bool:
    return (
        name.count(".") == 1
        and name.split(".")[1] not in HEIGHT
        or (name.endswith(".__main__"))
    )


def allowed(importer: str, imported: str) -> bool:
    """True if the module `importer` may import the module `imported`."""
    if importer == "nfnet_jax":  # For type checkers; what is loaded when: see below.
        return not is_command(imported)
    if is_command(importer) or imported == "nfnet_jax":
        return True
    if is_command(imported):
        return False
    above, below = importer.split(".")[1], imported.split(".")[1]
    return above == below or HEIGHT[above] > HEIGHT[below]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_downward(path):
    name = module_name(path)
    assert [other for other in imported_modules(path) if not allowed(name, other)] == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_private_names_stay_at_home(path):
    taken = [(base, name) for base, name in imports(path) if name.startswith("_")]
    taken = [found for found in taken if not found[1].startswith("__")]
    assert taken == []


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The names of one circle of a graph, or []."""
    done: set[str] = set()

    def walk(name, trail):
        if name in trail:
            return trail[trail.index(name) :]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := walk(other, [*trail, name]):
                return found
        done.add(name)
        return []

    return next(filter(None, (walk(name, []) for name in sorted(graph))), [])


def test_no_module_imports_itself_through_others():
    # The package's own file is for type checkers.
    paths = [path for path in MODULES if path != PACKAGE / "__init__.py"]
    graph = {module_name(path): imported_modules(path) for path in paths}
    assert circle(graph) == []


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert sorted(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == ["b", "c"]


@pytest.mark.parametrize(
    ("importer", "imported", "may"),
    [
        ("models.nfnet", "layers.residual", True),
        ("models.nfnet", "models.stage", True),
        ("layers.residual", "models.stage", False),
        ("models.nfnet", "optim.agc", False),
        ("training.loop", "train", False),
        ("train", "training.loop", True),
        ("data.__main__", "training.loop", True),
        ("data.load", "data.__main__", False),
    ],
)
def test_the_rule(importer, imported, may):
    assert allowed(f"nfnet_jax.{importer}", f"nfnet_jax.{imported}") is may


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from nfnet_jax.training.loop import train", "training.loop"),
        ("from nfnet_jax import training", "training"),
        ("import nfnet_jax.data.loading.shuffle", "data.loading.shuffle"),
        ("from ..optim import sam", "optim.sam"),
        ("from .. import cli", "cli"),
        ("def f():\n    import nfnet_jax.train", "train"),
    ],
)
def test_the_parser_sees_every_form(line, found, tmp_path, monkeypatch):
    package = tmp_path / "nfnet_jax"
    for name in ("models/a", *(found.replace(".", "/"),)):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text("")
    (package / "models/a.py").write_text(line)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    assert imported_modules(package / "models/a.py") == {f"nfnet_jax.{found}"}


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
