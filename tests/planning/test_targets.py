"""Programs of a CIFAR network as the compilers of TPUs and GPUs make them.

Nothing is run. The extras `tpu-plan` and `gpu-plan` bring the compilers; tests of those
that are missing are skipped.
"""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest
from compiled_programs import BATCH
from program_checks import (
    collectives,
    collectives_of_batch,
    convolution_dtypes,
    donated,
    moved_activations,
    stable_convolution_dtypes,
)

ROOT = pathlib.Path(__file__).parents[2]
COMPILERS = {"v": "libtpu", "h": "jax_cuda12_plugin"}
BFLOAT16, FLOAT32 = ("bf16",) * 3, ("f32",) * 3
DEVICES = {"v5e:1x1": 1, "v5e:2x2": 4, "h100:1": 1, "h100:8": 8}


class Programs:
    """Texts of the programs that `compiled_programs` has written for `target`."""

    def __init__(self, target: str, folder: pathlib.Path):
        self.target, self.devices, self._folder = target, DEVICES[target], folder

    @property
    def rows(self) -> int:
        """Images of the batch on each device."""
        return BATCH // self.devices

    @property
    def state_leaves(self) -> int:
        return int((self._folder / "state.txt").read_text())

    def optimized(self, name: str) -> str:
        return (self._folder / f"{name}.hlo").read_text()

    def unoptimized(self, name: str) -> str:
        return (self._folder / f"{name}.mlir").read_text()


@pytest.fixture(scope="module", params=DEVICES)
def programs(request, tmp_path_factory):
    target = request.param
    if not importlib.util.find_spec(COMPILERS[target[0]]):
        pytest.skip(f"the compiler for {target} is not installed")
    folder = tmp_path_factory.mktemp("programs")
    # The tests' own settings of XLA are not for these.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run(
        [sys.executable, ROOT / "tests/compiled_programs.py", target, folder],
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    return Programs(target, folder)


def test_every_convolution_is_of_bfloat16(programs):
    """Forward and backward, before the compiler and after it."""
    found = convolution_dtypes(programs.optimized("step"))
    assert set(found) == {BFLOAT16}
    # 10 convolutions, their kernels' gradients, and images' but those of the first.
    assert found.total() >= 29
    assert set(stable_convolution_dtypes(programs.unoptimized("step"))) == {BFLOAT16}


def test_a_convolution_in_float32_is_seen(programs):
    assert set(convolution_dtypes(programs.optimized("float32"))) != {BFLOAT16}
    assert set(stable_convolution_dtypes(programs.unoptimized("float32"))) == {FLOAT32}


def test_gradients_are_reduced_once_and_nothing_else_is_sent(programs):
    text = programs.optimized("step")
    assert collectives(text) == ({"all-reduce": 1} if programs.devices > 1 else {})
    assert collectives_of_batch(text, {BATCH, programs.rows}) == []


def test_an_evaluation_sends_sums_alone(programs):
    text = programs.optimized("evaluation")
    assert set(convolution_dtypes(text)) == {BFLOAT16}
    assert set(collectives(text)) == ({"all-reduce"} if programs.devices > 1 else set())
    assert collectives_of_batch(text, {BATCH, programs.rows}) == []


def test_devices_convolve_their_rows_in_groups_without_sending_any(programs):
    """The GPU compiler would gather them."""
    assert collectives(programs.optimized("grouped")) == {}
    if programs.target == "h100:8":
        assert collectives(programs.optimized("undivided")) == {"all-gather": 1}


def test_a_gather_of_the_batch_is_seen(programs):
    if programs.devices == 1:
        pytest.skip("one device has nothing to gather")
    text = programs.optimized("gathered")
    assert set(collectives(text)) != {"all-reduce"}
    assert collectives_of_batch(text, {BATCH, programs.rows})


def test_signals_are_neither_copied_nor_transposed(programs):
    assert moved_activations(programs.optimized("step"), programs.rows) == {}


def test_a_transposed_signal_is_seen(programs):
    assert moved_activations(programs.optimized("transposed"), programs.rows)


def test_the_new_state_takes_the_memory_of_the_old_one(programs):
    leaves = programs.state_leaves
    assert leaves > 100
    assert donated(programs.optimized("step")) == set(range(leaves))


def test_a_copied_state_is_seen(programs):
    assert donated(programs.optimized("copied")) == set()


def plan(target: str, *flags: str) -> subprocess.CompletedProcess:
    """The command on `configs/digits.py`, if the compiler for `target` is here."""
    if not importlib.util.find_spec(COMPILERS[target[0]]):
        pytest.skip(f"the compiler for {target} is not installed")
    command = [sys.executable, "-m", "nfnet_jax.plan", f"--target={target}", *flags]
    return subprocess.run(
        [*command, f"--config={ROOT / 'configs/digits.py'}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_a_topology_that_does_not_exist_is_refused_in_one_line():
    done = plan("v5e:3x3")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --target is 'v5e:3x3', which its compiler")
    assert "expected such as v5e:4x4" in done.stderr
    assert done.stderr.count("\n") == 1


def test_compilers_are_silent():
    done = plan("h100:1")
    assert done.returncode == 0 and done.stderr == ""
    assert "63.7 GB: fits" in done.stdout


def test_a_batch_that_does_not_fit_ends_with_2_and_says_what_would():
    done = plan("h100:1", "--image_shape=512x512x3", "--config.data.batch_size=9999")
    assert done.returncode == 2
    assert "DOES NOT FIT" in done.stdout and "f32[" in done.stdout
    found = re.search(r"; try (.*)$", done.stderr.strip())
    assert "--config.train.dtype=bfloat16 or --config.train.remat=block" in found[1]
    assert done.stderr.count("\n") == 1
