"""Config files: Python whose `get_config` returns the config of an experiment."""

import os
import runpy
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from nfnet_jax.config.base import check_config, override
from nfnet_jax.utils.errors import UserError, nearest
from nfnet_jax.utils.files import check_local


def load(
    file: str | os.PathLike, overrides: Mapping[str, Any] = MappingProxyType({})
) -> ConfigDict:
    """Returns the checked config of FILE[:ARGUMENT], with other values of some keys.

    `overrides` are by path: {"optim.learning_rate": 0.1, "train.steps": 100}.

    Raises:
      UserError: no such file, an error in it, an unknown key, or a wrong value.
    """
    config, _ = load_file(file)
    override(config, overrides)
    check_config(config)
    return config


def load_file(file: str | os.PathLike) -> tuple[ConfigDict, dict[str, Any]]:
    """Returns the checked config of FILE[:ARGUMENT], and all names of the file.

    Raises:
      UserError: no such file, no such function, an error in it, a wrong key or value.
    """
    check_local(file, "the file")
    path, *argument = os.fspath(file).split(":", 1)
    _check_file(path)
    try:
        names = runpy.run_path(path)
        if "get_config" not in names:
            raise UserError("there is no function get_config(), expected one")
        config = names["get_config"](*argument)
        check_config(config)
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        text = " ".join(str(error).split()) or "no message"
        raise UserError(f"{_origin(error, path)}: {kind}{text}") from error
    return config, names


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
        f"{path!r} is {found} (from {os.getcwd()}), expected a Python file{hint}"
    )


def _origin(error: BaseException, path: str) -> str:
    """Config file, with the line that raised if the error comes from one."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else path
