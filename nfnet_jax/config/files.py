"""A config file: Python whose `get_config` returns the config of an experiment."""

import os
import re
import runpy
import traceback

from ml_collections import ConfigDict

from nfnet_jax.config import check_config, nearest_key
from nfnet_jax.utils.errors import UserError, nearest
from nfnet_jax.utils.paths import check_local


def load_config(file: str) -> ConfigDict:
    """What `get_config` of FILE[:ARGUMENT] returns, its keys and values checked.

    Raises:
      UserError: no such file, no such function, an error in it, a wrong key or value.
    """
    check_local(file, "--config")
    path, *argument = file.split(":", 1)
    _check_file(path)
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise UserError(f"{path} has no function get_config(), expected one")
        config = get_config(*argument)
        check_config(config)
    except UserError as error:
        raise UserError(f"--config: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--config: {_origin(error, path)}: {_reason(error)}"
        ) from error
    return config


def _check_file(path: str) -> None:
    if os.path.isfile(path):
        return
    folder, name = os.path.split(path)
    present = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    # Names without their folder are tried in configs/, where the examples are.
    choices = [os.path.join(folder, entry) for entry in present]
    if os.path.isdir("configs"):
        choices += [os.path.join("configs", entry) for entry in os.listdir("configs")]
    choices = [choice for choice in choices if choice.endswith(".py")]
    same = [c for c in choices if os.path.basename(c) in (name, f"{name}.py")]
    hint = f"; did you mean {same[0]!r}?" if same else nearest(path, choices)
    found = "a directory" if os.path.isdir(path) else "no such file"
    raise UserError(
        f"--config: {path!r} is {found} (from {os.getcwd()}), expected a Python file"
        f"{hint}"
    )


def _origin(error: BaseException, path: str) -> str:
    """The config file, with the line that raised where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else path


def _reason(error: BaseException) -> str:
    """One line of an error that a config file raised."""
    text = " ".join(str(error).split())
    if unknown := re.search(r'Key \\?"(\w+)\\?" does not exist', text):
        return f"unknown config key {unknown[1]!r}{nearest_key(unknown[1])}"
    if wrong := re.match(
        r"Could not override field '(\w+)'.*?\. (.*) is of original type <class '"
        r"([\w.]+)'> and cannot be casted to type <class '([\w.]+)'>",
        text,
    ):
        found, expected = (wrong[i].rpartition(".")[2] for i in (3, 4))
        if expected == "tuple":
            expected = "tuple such as ('a', 'b') or ('a',)"
        return f"{wrong[1]} is {wrong[2]} ({found}), expected {expected}"
    return f"{type(error).__name__}: {text or 'no message'}"
