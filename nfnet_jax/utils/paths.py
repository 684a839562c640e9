"""Paths that a user gives."""

import os
import re
from pathlib import Path

from nfnet_jax.utils.errors import UserError

# After a single slash, too: some shells and `os.path.normpath` leave one.
_SCHEME = re.compile(
    r"([a-z][a-z0-9+.\-]+)://|(gs|gcs|s3|s3a|s3n|https?|ftp|hdfs|file|dbfs|az|abfss?):/",
    re.IGNORECASE,
)


def scheme_of(path: str | os.PathLike) -> str | None:
    """ "gs" of "gs://bucket/runs", None of a path of this machine."""
    found = _SCHEME.match(os.fspath(path))
    return found and (found[1] or found[2]).lower()


def check_local(path: str | os.PathLike, name: str) -> None:
    """Raises UserError where `path`, the value of `name`, is on another machine.

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
    """The path `path`, the value of `name`, with the home directory for ~.

    Raises:
      UserError: it is on another machine.
    """
    check_local(path, name)
    # Unlike Path's, it leaves the name of nobody as it is.
    return Path(os.path.expanduser(path))
