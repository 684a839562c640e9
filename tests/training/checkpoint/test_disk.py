"""Full disks and directories that cannot be written: one line, and nothing is lost."""

import contextlib
import resource
import shutil
import subprocess

import jax
import numpy as np
import pytest
from small_states import check_is, make_state, restore
from tiny_run import last_state, state_at, tiny_config

from nfnet_jax import cli
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.logging import MetricWriter
from nfnet_jax.training.loop import train
from nfnet_jax.training.trained import score_checkpoint
from nfnet_jax.utils.errors import UserError


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2.5 MB: room for two checkpoints of the tiny run, not three."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no permission to mount")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def remount(path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(path)], check=True)


def test_a_full_disk_costs_no_checkpoint(small_disk, undisturbed, capfd):
    config = tiny_config(**{"checkpoint.every_steps": 2, "train.steps": 8})
    workdir = small_disk / "run"
    with pytest.raises(
        UserError, match="cannot write checkpoint .*/6 .*; 4 is the last"
    ) as error:
        train(config, str(workdir))
    assert "No space left" in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}

    remount(small_disk, "ro")
    with pytest.raises(UserError, match="cannot write .*: Read-only file system"):
        train(config, str(workdir))
    assert score_checkpoint(config, str(workdir))["step"] == 4
    remount(small_disk, "rw")

    remount(small_disk, "size=20m")
    train(config, str(workdir))
    states = last_state(workdir), state_at(undisturbed, 8)
    jax.tree.map(np.testing.assert_array_equal, *states)


@contextlib.contextmanager
def no_large_files():
    """Forbids this process files of more than 300 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_save_that_fails_keeps_the_one_before(tmp_path, capfd):
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(make_state(2))
        checkpoints.wait()
        with (
            no_large_files(),
            pytest.raises(UserError, match="cannot write .*/4 .*; 2 is the last"),
        ):
            checkpoints.save(make_state(4))
            checkpoints.wait()
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
        check_is(restore(tmp_path), 2)
        checkpoints.save(make_state(4))
    check_is(restore(tmp_path), 4)
    assert "Traceback" not in capfd.readouterr().err


def test_a_failed_save_is_removed_although_threads_still_write(tmp_path, monkeypatch):
    """Threads of Orbax go on writing after one of them failed."""
    leftover = tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp"
    remove = shutil.rmtree

    def remove_while_written(path, ignore_errors=False):
        remove(path, ignore_errors)
        if not calls:
            leftover.mkdir()
        calls.append(path)

    calls = []
    leftover.mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", remove_while_written)
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(make_state(2))
    assert len(calls) == 2
    assert not leftover.exists()


def test_rows_of_metrics_are_whole_or_absent(tmp_path):
    with MetricWriter(str(tmp_path), tiny_config()) as writer:
        with (
            no_large_files(),
            pytest.raises(UserError, match="cannot write .*metrics.jsonl"),
        ):
            for step in range(99):
                writer.write(step, {"loss": 0.125})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert lines == [
        f'{{"step": {step}, "loss": 0.125}}\n' for step in range(len(lines))
    ]


def test_no_room_for_what_is_printed_is_one_line(capsys):
    def main(argv):
        with open("/dev/full", "w") as file:
            file.write("text")

    with pytest.raises(SystemExit) as exit_:
        cli.run(main)
    assert exit_.value.code == 2
    error = "error: cannot write: No space left on device\n"
    assert capsys.readouterr().err == error
