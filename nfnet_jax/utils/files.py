"""Paths that a user gives, the cache directory, files written whole or not at all."""

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nfnet_jax.utils.errors import UserError

# After a single slash, too: some shells and `os.path.normpath` leave one.
_SCHEME = re.compile(
    r"([a-z][a-z0-9+.\-]+)://|(gs|gcs|s3|s3a|s3n|https?|ftp|hdfs|file|dbfs|az|abfss?):/",
    re.IGNORECASE,
)


def scheme_of(path: str | os.PathLike) -> str | None:
    """Returns "gs" for "gs://bucket/runs", None for a path of this machine."""
    found = _SCHEME.match(os.fspath(path))
    return found and (found[1] or found[2]).lower()


def check_local(path: str | os.PathLike, name: str) -> None:
    """Raises UserError if `path`, the value of `name`, is on another machine.

    As a local path, gs://bucket would be a directory called "gs:".
    """
    scheme = scheme_of(path)
    if scheme is None:
        return
    local = re.sub(r"^\w+:/*", "/", os.fspath(path))
    hint = f"; did you mean {local!r}?" if scheme == "file" else ""
    raise UserError(
        f"{name} is {os.fspath(path)!r}, expected a path of this machine: {scheme}:// "
        f"is not supported{hint}"
    )


def local_path(path: str | os.PathLike, name: str) -> Path:
    """Returns `path`, the value of `name`, with the home directory for ~.

    Raises:
      UserError: it is on another machine.
    """
    check_local(path, name)
    # Unlike Path's, it leaves the name of nobody as it is.
    return Path(os.path.expanduser(path))


def cache_directory() -> Path:
    """Returns $NFNET_JAX_CACHE, else nfnet_jax in $XDG_CACHE_HOME or ~/.cache.

    Raises:
      UserError: the directory is not on this machine.
    """
    if chosen := os.environ.get("NFNET_JAX_CACHE"):
        return local_path(chosen, "NFNET_JAX_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return local_path(shared, "XDG_CACHE_HOME") / "nfnet_jax"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path beside `path`; what is written there takes the place of `path`.

    Other processes see the whole file or none of it, even if this process is killed. If
    the block raises, `path` stays as it is.
    """
    part = Path(f"{os.fspath(path)}.{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file by `replacing`, in a directory that need not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("xb") as file:
        write(file)
