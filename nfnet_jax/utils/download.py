"""Downloads that resume, are verified and appear whole."""

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from nfnet_jax.utils.errors import UserError

_TIMEOUT_SECONDS = 30
_BLOCK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """URL of a file and, if known, its checksum and its size in bytes.

    `filename` on disk is by default the last part of `url`.
    """

    url: str
    sha256: str | None = None
    size: int | None = None
    filename: str | None = None

    @property
    def name(self) -> str:
        return self.filename or self.url.rsplit("/", 1)[-1]


def fetch(remote: RemoteFile, directory: Path, advice: str = "") -> Path:
    """Path of the verified file in `directory`, downloaded or resumed if need be.

    `advice` continues the message of a failed download.

    Raises:
      UserError: the URL cannot be reached, or the checksum is wrong (the file is then
        kept aside under another name).
    """
    path = directory / remote.name
    if path.exists():
        _verify(remote, path)
        return path
    partial = path.with_name(path.name + ".part")
    reason = _download(remote, partial)
    if reason:
        raise UserError(
            f"{remote.url} could not be downloaded ({reason}); place the file at"
            f" {path}{advice}"
        )
    _verify(remote, partial)
    os.replace(partial, path)
    return path


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Waits for an exclusive lock between processes, released even by a killed one."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(remote: RemoteFile, partial: Path) -> object:
    """Completes `partial`, as long as attempts add bytes; returns a failure or None."""
    size = remote.size
    while size is None or _size(partial) < size:
        before = _size(partial)
        reason: object = "the server closed the connection"
        try:
            size = _append_rest(remote, partial, before) or size
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "code", None) == 416:  # Range not satisfiable.
                # The part is at least as long as the file of the server.
                partial.unlink(missing_ok=True)
                if remote.size is None and before:
                    continue
            reason = getattr(error, "reason", None) or error
        if _size(partial) <= before:
            return reason
    return None


def _append_rest(remote: RemoteFile, partial: Path, start: int) -> int:
    """Appends the bytes from `start` on; returns the size of the whole file."""
    request = urllib.request.Request(remote.url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        # With any other status, the server sends the whole file again.
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        size = remote.size or (start + int(length) if length else None)
        # disable=None: a bar on a terminal, silence in a log.
        bar = {"desc": remote.name, "initial": start, "disable": None}
        with (
            partial.open("ab" if resumed else "wb") as file,
            tqdm.wrapattr(file, "write", size, unit_divisor=1024, **bar) as progress,
        ):
            shutil.copyfileobj(response, progress, _BLOCK_BYTES)
    return size or _size(partial)


def _verify(remote: RemoteFile, path: Path) -> None:
    if remote.sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == remote.sha256:
        return
    # Out of the way of the next download; kept, because the user may have put it there.
    aside = path.with_name(remote.name + ".wrong")
    os.replace(path, aside)
    raise UserError(
        f"{remote.name} has the wrong checksum: expected sha256 {remote.sha256}"
        f" ({remote.size} bytes), found {found} ({_size(aside)} bytes); the file was"
        f" kept aside as {aside}"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
