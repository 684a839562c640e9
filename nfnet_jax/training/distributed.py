"""Connection of the processes of one run, on one or several hosts."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from nfnet_jax.utils.errors import UserError

HEARTBEAT_SECONDS = 30
"""Time without a sign of life after which a process counts as dead."""
_LOST = re.compile(
    r"gloo|nccl|coordination|unhealthy|socket closed|connection (closed|reset)"
    "|deadline_exceeded|unavailable",
    re.IGNORECASE,
)
"""Words in the errors of JAX and of its transports when another process is gone."""


def connect(coordinator: str | None, processes: int | None, process: int | None):
    """Joins the other processes of a run, before JAX looks for devices.

    `coordinator` is HOST:PORT of process 0, with the number of `processes` and the
    number of this `process` among them; or "auto" in a TPU pod, Slurm, Kubernetes or
    Open MPI, which provide all three; or None for a single process. All processes but
    the first print nothing from here on.

    Raises:
      UserError: flags that do not fit together, or no connection.
    """
    numbers: dict[str, Any] = {"processes": processes, "process": process}
    explicit = coordinator not in (None, "auto")
    for name, number in numbers.items():
        if explicit == (number is None):
            found = f"--coordinator={coordinator}" if coordinator else "no coordinator"
            flag = f"--{name} is missing" if explicit else f"--{name}={number}"
            raise UserError(f"{flag} with {found}, expected --coordinator=HOST:PORT")
    if coordinator is None:
        return
    arguments: dict[str, Any] = {}
    if explicit:
        if not re.fullmatch(r".+:\d{1,5}", coordinator):
            raise UserError(
                f"--coordinator is {coordinator!r}, expected HOST:PORT of process 0 or "
                "auto"
            )
        if numbers["process"] >= numbers["processes"]:
            raise UserError(
                f"--process is {process}, expected less than --processes={processes}"
            )
        arguments = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
        }
    try:
        jax.distributed.initialize(
            **arguments,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
        # Before compilation, which may take one of them longer than CPUs wait.
        multihost_utils.sync_global_devices("connected")
    # No cluster found, no answer from a host: each has its own type.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise UserError(
            f"--coordinator={coordinator}: {reason or type(error).__name__}"
        ) from error
    if jax.process_index():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")


@contextlib.contextmanager
def ending_with_the_others(workdir: str) -> Iterator[None]:
    """Ends this process with a line and exit code 2 if another one of the run is lost.

    It ends at once: at a normal exit JAX waits for all processes, and aborts without
    the lost one.
    """
    try:
        yield
    # JAX raises a ValueError for some of them.
    except (jax.errors.JaxRuntimeError, ValueError, UserError) as error:
        # A save that failed is a UserError, whose cause is JAX's own exception.
        lost = error.__cause__ if isinstance(error, UserError) else error
        reason = next(iter(str(lost).splitlines()), "")[:200]
        if (
            jax.process_count() == 1
            or not isinstance(lost, jax.errors.JaxRuntimeError | ValueError)
            or not _LOST.search(reason)
        ):
            raise
        sys.stderr.write(
            f"error: another process of this run is gone ({reason}); start all of them "
            f"again: they continue from the last checkpoint in {workdir}\n"
        )
        sys.stderr.flush()
        os._exit(2)
