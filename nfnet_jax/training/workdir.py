"""Work directory of a run: the config that owns it, and the files in it."""

import contextlib
import fcntl
import glob
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import IO, Any

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
"""Keys, and sections with their dot, whose values may change when a run continues: what
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
    """Raises UserError if the run in `workdir` has another network than `config`.

    Parameters of other networks may have the same shapes.
    """
    theirs, ours = read_config(workdir).model, config.model
    for key in theirs:
        if key != "weights" and theirs[key] != ours[key]:
            raise UserError(
                f"{workdir} holds a network whose model.{key} is {theirs[key]!r}, not "
                f"{ours[key]!r}: expected the config that read_config gives"
            )


def may_change(key: str) -> bool:
    """True if the config key is one of `MAY_CHANGE` or in one of its sections."""
    return key in MAY_CHANGE or any(
        key.startswith(section) for section in MAY_CHANGE if section.endswith(".")
    )


def is_moved(workdir: str, config: ConfigDict) -> bool:
    """True if the data of `config` lie elsewhere than those of the run in `workdir`."""
    theirs, ours = read_config(workdir).data, config.data
    return not _one_place(theirs.name, ours.name) or theirs.dir != ours.dir


def _same(workdir: str, key: str, theirs: Any, ours: Any) -> bool:
    """True if two values of a key mean the same, where data are compared by content."""
    place = key in ("data.name", "model.weights") and _one_place(theirs, ours)
    if ours == theirs or place or key != "data.name":
        return ours == theirs or place
    facts = os.path.join(workdir, "data.json")
    folders = all(str(name).startswith(_FOLDER) for name in (theirs, ours))
    known = folders and os.path.exists(facts)
    return known and bool(read_json(facts).get("contents"))


def _one_place(theirs: Any, ours: Any) -> bool:
    """True if two values are equal, or paths of one place."""
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
def writing(path: str, flag: str = "--workdir") -> Iterator[None]:
    """Turns an OSError of this context into a UserError about writing `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{flag}: cannot write {path}: {reason}") from error


@contextlib.contextmanager
def lock_workdir(workdir: str) -> Iterator[None]:
    """Creates the work directory and locks it for a run, in process 0.

    The operating system releases the lock on the file `lock` when the process ends,
    however it ends. The file stays, with process and machine of its last holder.

    Raises:
      UserError: another run holds the lock, or nothing can be written there.
    """
    if jax.process_index() > 0:
        yield
        return
    with writing(workdir):
        os.makedirs(workdir, exist_ok=True)
        file = open(os.path.join(workdir, "lock"), "a+b", buffering=0)
    with file:
        _lock(file, workdir, fcntl.LOCK_EX)
        with writing(workdir):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}".encode())
        yield


def check_unlocked(workdir: str) -> None:
    """Raises UserError if a run holds the work directory now; writes nothing."""
    path = os.path.join(workdir, "lock")
    if os.path.exists(path):
        with open(path, "rb") as file:
            _lock(file, workdir, fcntl.LOCK_SH)


def _lock(file: IO[bytes], workdir: str, kind: int) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().decode() or "which just starts"
        raise UserError(
            f"{workdir} is in use by another run ({holder}): wait for its end or "
            "choose another --workdir"
        ) from error


def read_config(workdir: str) -> ConfigDict:
    """Config of the run in `workdir`.

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
    """Content of result.json, None before the end of the run."""
    path = os.path.join(workdir, "result.json")
    return read_json(path) if os.path.exists(path) else None


def check_result(workdir: str, result: Mapping[str, Any]) -> None:
    """Raises UserError if `result`, read from result.json, lacks what a run reached."""
    for key in ("test_accuracy", "test_accuracy_ema", "seconds", "images_per_second"):
        if key not in result:
            raise UserError(
                f"{os.path.join(workdir, 'result.json')} is damaged: it has no {key!r}"
            )


def write_json(path: str, values: dict[str, Any]) -> None:
    """Writes a whole file or none, on the first of several processes only."""
    if jax.process_index():
        return
    with replacing(path) as part:
        part.write_text(dumps(values, indent=2) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of Python and of packages that a result depends on, and the devices."""
    found = {package: metadata.version(package) for package in PACKAGES}
    device = jax.devices()[0]
    devices = f"{jax.device_count()} x {device.platform} ({device.device_kind})"
    return {"python": platform.python_version(), **found, "devices": devices}


def _nearby_runs(workdir: str) -> str:
    """Suggestion of a run beside or below `workdir` that may have been meant."""
    folder, name = os.path.split(os.path.abspath(workdir))
    below = glob.glob("*/config.json", root_dir=workdir)
    if below:
        found = sorted(os.path.dirname(path) for path in below)
        return f"; did you mean {os.path.join(workdir, found[0])!r}?"
    beside = glob.glob("*/config.json", root_dir=folder)
    return nearest(name, [os.path.dirname(path) for path in beside])


def read_json(path: str) -> dict[str, Any]:
    """Object in a JSON file.

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
