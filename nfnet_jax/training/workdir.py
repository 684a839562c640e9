"""The work directory of a run: who owns it, and what a finished run leaves in it."""

import contextlib
import glob
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import jax
from ml_collections import ConfigDict

from nfnet_jax.config import base_config, check_config, from_json, leaves, to_json
from nfnet_jax.utils.errors import UserError, nearest
from nfnet_jax.utils.files import check_local, replacing
from nfnet_jax.utils.strict_json import dumps, loads

MAY_CHANGE = (
    "name",
    "checkpoint.",
    "data.dir",
    "data.eval_batch_size",
    "data.workers",
    "eval.",
    "log.",
    "parallel.",
    "train.on_nan",
    "train.remat",
)
"""Keys, and sections with their dot, that a run may continue with other values of: what
it has learned does not depend on them."""

_FOLDER = "folder:"
_MOST_NAMED = 5
PACKAGES = ("nfnet_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def check_workdir(workdir: str, config: ConfigDict) -> None:
    """Raises UserError if `workdir` cannot hold this run or holds another one."""
    check_local(workdir, "--workdir")
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise UserError(f"--workdir: {workdir!r} is a file, expected a directory")
    path = os.path.join(workdir, "config.json")
    if not os.path.exists(path):
        return
    # A run of an earlier version lacks keys that have come since.
    theirs = leaves(to_json(base_config())) | leaves(read_json(path))
    ours = leaves(to_json(config))
    different = [
        f"{key} is {theirs.get(key)!r} there, {ours.get(key)!r} here"
        for key in sorted(ours | theirs)
        if not may_change(key)
        and not _same(workdir, key, theirs.get(key), ours.get(key))
    ]
    if different:
        more = len(different) - _MOST_NAMED
        others = f"; and {more} more" if more > 0 else ""
        raise UserError(
            f"{workdir} holds a run of another config "
            f"({'; '.join(different[:_MOST_NAMED])}{others}): choose another --workdir "
            "or name"
        )


def check_network(workdir: str, config: ConfigDict) -> None:
    """Raises UserError if the network of the run in `workdir` is not that of `config`:
    its parameters may have the same shapes."""
    theirs, ours = read_config(workdir).model, config.model
    for key in theirs:
        if key != "weights" and theirs[key] != ours[key]:
            raise UserError(
                f"{workdir} holds a network whose model.{key} is {theirs[key]!r}, not "
                f"{ours[key]!r}: expected the config that read_config gives"
            )


def may_change(key: str) -> bool:
    """Whether the config key is one of `MAY_CHANGE` or in one of its sections."""
    return key in MAY_CHANGE or any(
        key.startswith(section) for section in MAY_CHANGE if section.endswith(".")
    )


def is_moved(workdir: str, config: ConfigDict) -> bool:
    """Whether the data of `config` lie elsewhere than the run in `workdir` says."""
    theirs, ours = read_config(workdir).data, config.data
    return not _one_place(theirs.name, ours.name) or theirs.dir != ours.dir


def _same(workdir: str, key: str, theirs: Any, ours: Any) -> bool:
    """Whether values of a key mean the same, the data being known by what they hold."""
    if ours == theirs or key not in ("data.name", "model.weights"):
        return ours == theirs
    if key == "model.weights" or _one_place(theirs, ours):
        return _one_place(theirs, ours)
    facts = os.path.join(workdir, "data.json")
    folders = all(str(name).startswith(_FOLDER) for name in (theirs, ours))
    known = folders and os.path.exists(facts)
    return known and bool(read_json(facts).get("contents"))


def _one_place(theirs: Any, ours: Any) -> bool:
    """Whether two values are one, or paths of one place."""
    if theirs == ours or not isinstance(theirs, str) or not isinstance(ours, str):
        return theirs == ours
    if theirs.startswith(_FOLDER) != ours.startswith(_FOLDER):
        return False
    places = [value.removeprefix(_FOLDER) for value in (theirs, ours)]
    first, second = (os.path.realpath(os.path.expanduser(p)) for p in places)
    return first == second


def create_workdir(workdir: str, config: ConfigDict) -> None:
    """Makes the directory and writes config.json."""
    with writing(workdir):
        os.makedirs(workdir, exist_ok=True)
        write_json(os.path.join(workdir, "config.json"), to_json(config))


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns what the operating system refuses in this context into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--workdir: cannot write {path}: {error.strerror or error}"
        ) from error


def read_config(workdir: str) -> ConfigDict:
    """The config of the run that `workdir` holds.

    Raises:
      UserError: there is none, or it is damaged.
    """
    check_local(workdir, "--workdir")
    path = os.path.join(workdir, "config.json")
    if not os.path.isfile(path):
        raise UserError(
            f"--workdir: {workdir!r} holds no run (no {path}){_nearby_runs(workdir)}"
        )
    try:
        config = from_json(read_json(path))
        check_config(config)
    except UserError as error:
        raise UserError(f"--workdir: {path}: {error}") from error
    return config


def read_result(workdir: str) -> dict[str, Any] | None:
    """result.json of a finished run, None before the end."""
    path = os.path.join(workdir, "result.json")
    return read_json(path) if os.path.exists(path) else None


def write_json(path: str, values: dict[str, Any]) -> None:
    """Writes a whole file or none; of several processes, the first one alone does."""
    if jax.process_index():
        return
    with replacing(path) as part:
        part.write_text(dumps(values, indent=2) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Of Python, the packages that a result depends on, and the device."""
    found = {package: metadata.version(package) for package in PACKAGES}
    device = jax.devices()[0]
    devices = f"{jax.device_count()} x {device.platform} ({device.device_kind})"
    return {"python": platform.python_version(), **found, "devices": devices}


def _nearby_runs(workdir: str) -> str:
    """A run beside or below `workdir` that may have been meant."""
    folder, name = os.path.split(os.path.abspath(workdir))
    below = glob.glob("*/config.json", root_dir=workdir)
    if below:
        found = sorted(os.path.dirname(path) for path in below)
        return f"; did you mean {os.path.join(workdir, found[0])!r}?"
    beside = glob.glob("*/config.json", root_dir=folder)
    return nearest(name, [os.path.dirname(path) for path in beside])


def read_json(path: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = loads(file.read())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, expected JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged, expected a JSON object")
    return values
