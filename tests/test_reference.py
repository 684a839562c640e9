"""The reference of the public modules is complete, and builds without a warning."""

import functools
import importlib
import inspect
import re
import runpy
import subprocess
import sys

import flax.linen as nn
import pytest
from pages import REPOSITORY

SCRIPT = REPOSITORY / "docs" / "build_reference.py"
MODULES = runpy.run_path(str(SCRIPT))["PUBLIC"]
ARRAY = re.compile(r"\b(jax\.|np\.|jaxlib.*|numpy\.)?(Array|ndarray)\b")
SHAPE = re.compile(
    r"\[(?!SP|HP|SI|WS)[\w'/·+*, -]+(\.\.\.)?\]|\bscalars?\b|\bshapes?\b|\bvector\b"
)
"""What tells a shape: [N, H, W, C] but not [SP], "scalar", "of any shape"."""


def public_names(module) -> dict[str, object]:
    """What pdoc shows of a module: `__all__`, or what is defined there."""
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
    """Functions, classes and their own public methods and properties, by path."""
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
    """And not a function that is the default of a field."""
    return inspect.isfunction(value) and value.__qualname__.startswith(owner.__name__)


PUBLIC = callables()


def is_documented_by_its_class(path: str) -> bool:
    """Short methods and the fields of a class are told of in its docstring."""
    owner = PUBLIC.get(path.rpartition(".")[0])
    name = path.rpartition(".")[2]
    return inspect.isclass(owner) and f"`{name}`" in (owner.__doc__ or "")


def own_docstring(value) -> str:
    text = value.__doc__ or ""
    # Made by dataclasses and NamedTuple of the signature.
    generated = inspect.isclass(value) and text.startswith(f"{value.__name__}(")
    return "" if generated else text


def takes_or_gives_arrays(value) -> bool:
    called = value.__call__ if is_module(value) else value
    if inspect.isclass(called):
        annotations = getattr(called, "__annotations__", {})
    else:
        annotations = getattr(inspect.unwrap(called), "__annotations__", {})
    return any(ARRAY.search(str(kind)) for kind in annotations.values())


def is_module(value) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)


@pytest.mark.parametrize("path", PUBLIC)
def test_public_names_are_documented(path):
    value = PUBLIC[path]
    text = own_docstring(value)
    if not text and is_documented_by_its_class(path):
        return
    assert len(text) > 10
    if takes_or_gives_arrays(value):
        assert SHAPE.search(text), text


def test_something_is_found():
    assert len(PUBLIC) > 100
    arrays = [path for path, value in PUBLIC.items() if takes_or_gives_arrays(value)]
    assert "nfnet_jax.layers.ws_conv.WSConv" in arrays
    assert "nfnet_jax.layers.ws_conv.standardize" in arrays
    assert "nfnet_jax.analysis.Signal.avg_var" in arrays


def test_the_reference_builds_without_warnings(tmp_path):
    command = [sys.executable, str(SCRIPT), f"--output={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for path in MODULES:
        page = tmp_path / f"{path.replace('.', '/')}.html"
        assert page.exists(), path
