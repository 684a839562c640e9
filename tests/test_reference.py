"""Docstrings: complete where modules are public, named by their subjects everywhere."""

import ast
import functools
import importlib
import inspect
import re
import runpy
import subprocess
import sys

import pytest
from pages import REPOSITORY

SCRIPT = REPOSITORY / "docs" / "build_reference.py"
MODULES = runpy.run_path(str(SCRIPT))["PUBLIC"]
PACKAGE = REPOSITORY / "nfnet_jax"
FOLDERS = "nfnet_jax tests configs experiments scripts examples".split()
FILES = [path for name in FOLDERS for path in sorted((REPOSITORY / name).rglob("*.py"))]
FIRST_WORDS = (
    "also as here how like of or that what where whether which who whose".split()
)
"""First words that do not name a thing or an action."""
PAPER_KEY = re.compile(r"\[(SP|HP|SI|WS)\b")
SHAPED = ("ops", "layers", "models", "optim")
"""Packages whose public functions name the axes of their arrays."""


def public_names(module) -> dict[str, object]:
    """Names that pdoc shows of a module: `__all__`, or all that are defined there."""
    names = getattr(module, "__all__", None)
    if names is not None:
        return {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and _defined_in(value, module)
    }


def _defined_in(value, module) -> bool:
    named = inspect.isclass(value) or inspect.isroutine(value)
    named = named or isinstance(value, functools._lru_cache_wrapper)
    return named and value.__module__ == module.__name__


def callables() -> dict[str, object]:
    """Collects functions, classes, their public methods and properties, by path."""
    found = {}
    for path in MODULES:
        for name, value in public_names(importlib.import_module(path)).items():
            if isinstance(value, str):
                continue
            found[f"{path}.{name}"] = value
            if inspect.isclass(value):
                found |= methods(f"{path}.{name}", value)
    return found


def methods(path: str, owner: type) -> dict[str, object]:
    return {
        f"{path}.{name}": value.fget if isinstance(value, property) else value
        for name, value in vars(owner).items()
        if not name.startswith("_")
        and (isinstance(value, property) or _is_method(value, owner))
    }


def _is_method(value, owner: type) -> bool:
    """True of methods, not of a function that is the default of a field."""
    return inspect.isfunction(value) and value.__qualname__.startswith(owner.__name__)


PUBLIC = callables()


def is_documented_by_its_class(path: str) -> bool:
    """True if the docstring of the class names the method or field."""
    owner = PUBLIC.get(path.rpartition(".")[0])
    name = path.rpartition(".")[2]
    return inspect.isclass(owner) and f"`{name}`" in (owner.__doc__ or "")


def own_docstring(value) -> str:
    text = value.__doc__ or ""
    # Made by dataclasses and NamedTuple of the signature.
    generated = inspect.isclass(value) and text.startswith(f"{value.__name__}(")
    return "" if generated else text


@pytest.mark.parametrize("path", PUBLIC)
def test_public_names_are_documented(path):
    text = own_docstring(PUBLIC[path])
    assert len(text) > 10 or is_documented_by_its_class(path)


def docstrings(source: str) -> list[str]:
    """Lists the docstrings of a module and of all classes and functions in it."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def misnamed(source: str) -> list[str]:
    """Lists the docstrings that begin with one of `FIRST_WORDS`."""
    firsts = ((text, re.match(r"\W*(\w*)", text)[1]) for text in docstrings(source))
    return [text for text, word in firsts if word.lower() in FIRST_WORDS]


def annotations(function: ast.FunctionDef) -> list[str]:
    """Lists the annotations of arguments and result."""
    own = function.args
    given = (*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg)
    notes = [function.returns, *(a.annotation for a in given if a)]
    return [ast.unparse(note) for note in notes if note]


def shapeless(source: str) -> list[str]:
    """Lists the public functions and methods with an array of unknown axes.

    Functions that are arguments may have such arrays.
    """
    tree = ast.parse(source)
    bodies = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    return [
        node.name
        for body in bodies
        for node in body.body
        if isinstance(node, ast.FunctionDef)
        and (node.name == "__call__" or not node.name.startswith("_"))
        and any(
            re.search(r"(?<!\[)\b(jax\.Array|np\.ndarray)\b", text)
            and not text.startswith("Callable")
            for text in annotations(node)
        )
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_docstrings_begin_with_the_thing_or_the_action(path):
    source = path.read_text(encoding="utf-8")
    assert misnamed(source) == []
    assert not PAPER_KEY.search(source), "papers are cited by authors and title"


@pytest.mark.parametrize("package", SHAPED)
def test_public_functions_name_the_axes_of_their_arrays(package):
    paths = sorted((PACKAGE / package).glob("*.py"))
    assert paths
    assert {p.name: found for p in paths if (found := shapeless(p.read_text()))} == {}


def test_what_breaks_the_rules_is_found():
    source = '''
def scale(x: jax.Array) -> Float[Array, " C"]:
    """What scales x."""
class Layer:
    def __call__(self, x: Float[Array, "N C"]) -> jax.Array | None:
        """Scales x."""
    def _private(self, x: jax.Array): ...
def wrap(function: Callable[..., jax.Array]): ...
'''
    assert misnamed(source) == ["What scales x."]
    assert shapeless(source) == ["scale", "__call__"]


def test_something_is_found():
    assert len(PUBLIC) > 100 and "nfnet_jax.analysis.Signal.avg_var" in PUBLIC


def test_the_reference_builds_without_warnings(tmp_path):
    command = [sys.executable, str(SCRIPT), f"--output={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for path in MODULES:
        page = tmp_path / f"{path.replace('.', '/')}.html"
        assert page.exists(), path
