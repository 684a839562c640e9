"""One run at a time in a work directory."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator

import jax

from nfnet_jax.training.workdir import writing
from nfnet_jax.utils.errors import UserError


@contextlib.contextmanager
def hold(workdir: str) -> Iterator[None]:
    """Makes the work directory and holds it for process 0 of a run.

    The operating system's lock on the file `lock` ends with the process, however it
    ends; the file stays, and says which process and machine held it last.

    Raises:
      UserError: another run holds it, or nothing can be written there.
    """
    if jax.process_index() > 0:
        yield
        return
    with writing(workdir):
        os.makedirs(workdir, exist_ok=True)
        file = open(_path(workdir), "a+b", buffering=0)
    with file:
        _lock(file, workdir, fcntl.LOCK_EX)
        with writing(workdir):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}".encode())
        yield


def check_free(workdir: str) -> None:
    """Raises UserError if a run holds the work directory now. Writes nothing."""
    if os.path.exists(_path(workdir)):
        with open(_path(workdir), "rb") as file:
            _lock(file, workdir, fcntl.LOCK_SH)


def _lock(file, workdir: str, kind: int) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().decode() or "which just starts"
        raise UserError(
            f"{workdir} is in use by another run ({holder}): wait for its end or "
            "choose another --workdir"
        ) from error


def _path(workdir: str) -> str:
    return os.path.join(workdir, "lock")
