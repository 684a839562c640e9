"""Files from the network: resumed, verified, put in place whole."""

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from nfnet_jax.utils.errors import UserError

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """Where a file comes from and, where that is known, what it must be.

    `size` in bytes; `filename` on disk, by default the last part of `url`.
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
    if not path.exists():
        partial = path.with_name(path.name + ".part")
        reason = _download(remote, partial)
        if reason:
            raise UserError(
                f"{remote.url} could not be downloaded ({reason}); place the file at"
                f" {path}{advice}"
            )
        _verify(remote, partial)
        os.replace(partial, path)
    else:
        _verify(remote, path)
    return path


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock between processes; released even when one is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(remote: RemoteFile, partial: Path) -> object:
    """Fetches into `partial`, again and again as long as each attempt adds bytes.

    Returns None once all is there, otherwise why not.
    """
    size = remote.size
    while size is None or _size(partial) < size:
        before = _size(partial)
        reason: object = "the server closed the connection"
        try:
            size = _download_rest(remote, partial, before) or size
        except (OSError, http.client.HTTPException) as error:
            if (
                getattr(error, "code", None)
                == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            ):
                # At least as long as what the server has: not to be resumed.
                partial.unlink(missing_ok=True)
                if remote.size is None and before:
                    continue
            reason = getattr(error, "reason", None) or error
        if _size(partial) <= before:
            return reason
    return None


def _download_rest(remote: RemoteFile, partial: Path, start: int) -> int:
    """Appends what follows byte `start`; returns the size of the whole file."""
    request = urllib.request.Request(remote.url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        # Any other status than 206 means that the server sends the whole file again.
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        size = remote.size or (start + int(length) if length else None)
        with (
            partial.open("ab" if resumed else "wb") as file,
            # disable=None: a bar on a terminal, silence in a log.
            tqdm(
                desc=remote.name,
                total=size,
                initial=start,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    return size or _size(partial)


def _verify(remote: RemoteFile, path: Path) -> None:
    if remote.sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == remote.sha256:
        return
    # Out of the way, so that the next run downloads again; kept, because it may have
    # been put there by hand.
    aside = path.with_name(remote.name + ".wrong")
    os.replace(path, aside)
    raise UserError(
        f"{remote.name} has the wrong checksum: expected sha256 {remote.sha256},"
        f" ({remote.size} bytes), found {found} ({_size(aside)} bytes); the file was"
        f" kept aside as {aside}"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
