"""Runs of two processes: signals, the death of one, and continuing."""

import contextlib
import os
import re
import signal
import sys
import time

import jax
import numpy as np
import pytest
from tiny_run import FIRST, TinyRun, last_state
from trajectory import free_port

from nfnet_jax.training.distributed import ending_with_the_others
from nfnet_jax.utils.errors import UserError

OPTIONS = {"train.steps": 80, "checkpoint.every_steps": 10}


@contextlib.contextmanager
def pair(workdir):
    """Starts both processes of a run, until they can be interrupted."""
    address = f"--coordinator=127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                TinyRun(
                    workdir,
                    flags=(address, "--processes=2", f"--process={process}"),
                    **OPTIONS,
                )
            )
            for process in range(2)
        ]
        processes[0].read_until(FIRST)
        yield processes


def test_a_save_that_fails_because_a_process_is_gone_ends_this_one(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(os, "_exit", sys.exit)
    gone = ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")
    with pytest.raises(SystemExit, match="2"):
        with ending_with_the_others("runs/pair"):
            raise UserError("cannot write checkpoint") from gone
    told = capsys.readouterr().err
    assert told.startswith("error: another process of this run is gone (UNKNOWN: Gloo")
    for cause in (OSError(28, "No space left"), ValueError("other"), None):
        with pytest.raises(UserError, match="cannot write"):
            with ending_with_the_others("runs/pair"):
                raise UserError("cannot write checkpoint") from cause


@pytest.mark.slow
def test_a_pair_stops_together_survives_a_death_and_ends_as_if_undisturbed(tmp_path):
    with pair(tmp_path / "straight") as processes:
        assert [process.end()[0] for process in processes] == [0, 0]

    with pair(tmp_path / "disturbed") as (first, second):
        second.process.send_signal(signal.SIGTERM)
        ends = [first.end(), second.end()]
    assert [code for code, _ in ends] == [143, 143]
    steps = [
        re.search(r"SIGTERM after step (\d+), which is", said)[1] for _, said in ends
    ]
    assert steps[0] == steps[1]

    with pair(tmp_path / "disturbed") as (first, second):
        second.process.kill()
        killed = time.monotonic()
        code, said = first.end()
        assert time.monotonic() - killed < 60
    assert code == 2
    assert said.splitlines()[-1].startswith(
        "error: another process of this run is gone"
    )

    with pair(tmp_path / "disturbed") as processes:
        assert [process.end()[0] for process in processes] == [0, 0]
    params = [last_state(tmp_path / name).params for name in ("straight", "disturbed")]
    jax.tree.map(np.testing.assert_array_equal, *params)
