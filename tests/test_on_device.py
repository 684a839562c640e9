"""The script for accelerators: parts that fail, the report, and its tolerances."""

import json
import subprocess
import sys
import time

import flax.linen as nn
import golden
import jax
import numpy as np
import pytest
from jax import lax
from pages import REPOSITORY

from nfnet_jax.layers import ws_conv
from nfnet_jax.weights.haiku import from_haiku

SCRIPTS = REPOSITORY / "scripts"
FAKE_PART = """
import json, pathlib, subprocess, sys
word, *rest = sys.argv[1:]
if word == "sleep":
    subprocess.run(["sleep", "60"])
if word == "break":
    raise RuntimeError("broken")
if word == "read":
    rest = list(json.loads(pathlib.Path(rest[0]).read_text())["parts"])
value = None if word == "miss" else 1.0
passed = {"value": value, "expected": {"most": 2.0}, "passed": word != "miss"}
print("training ...")
print(json.dumps({"checks": {"error": passed}, "platform": "gpu", "rest": rest}))
"""
"""Part that does what its first argument says."""


@pytest.fixture
def on_device(tmp_path, monkeypatch):
    """The script, whose parts are `FAKE_PART`."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import on_device

    fake = tmp_path / "part.py"
    fake.write_text(FAKE_PART)
    monkeypatch.setattr(on_device, "PART", fake)
    return on_device


def report_of(on_device, monkeypatch, tmp_path, checks, measurements) -> tuple:
    """Exit code and parts of a run of these parts."""
    output = tmp_path / "report.json"
    monkeypatch.setattr(on_device, "plan", lambda options: (checks, measurements))
    monkeypatch.setattr(sys, "argv", ["on_device.py", f"--output={output}"])
    return on_device.main(), json.loads(output.read_text())["parts"]


def test_what_fails_loses_nothing_else(on_device, monkeypatch, tmp_path):
    report = tmp_path / "report.json"
    part = on_device.Part
    checks = [part("missed", ["miss"]), part("broken", ["break"])]
    measurements = [part("slow", ["sleep"], 0.5), part("last", ["read", str(report)])]
    code, parts = report_of(on_device, monkeypatch, tmp_path, checks, measurements)
    assert code == 1
    assert {name: p["status"] for name, p in parts.items()} == {
        "machine": "passed",
        "missed": "failed",
        "broken": "failed",
        "slow": "failed",
        "last": "passed",
    }
    assert "RuntimeError: broken" in parts["broken"]["output"]
    # The file was complete before the last part began.
    assert {"machine", "missed", "broken", "slow"} == set(parts["last"]["rest"])


def test_a_peer_may_fail(on_device, monkeypatch, tmp_path):
    peer = on_device.speed("timm", "nf_resnet50", 224, 64)._replace(arguments=["break"])
    code, parts = report_of(on_device, monkeypatch, tmp_path, [], [peer])
    assert code == 0 and parts[peer.name]["status"] == "failed"


def test_no_part_starts_without_time_or_outlasts_the_end(on_device, monkeypatch):
    late = time.monotonic() + on_device.LEAST_SECONDS - 1
    assert on_device.run(on_device.Part("a", ["pass"]), late)["status"] == "not run"
    monkeypatch.setattr(on_device, "LEAST_SECONDS", 0)
    cut = on_device.run(on_device.Part("a", ["sleep"]), time.monotonic() + 0.5)
    assert cut["status"] == "not run" and "ended after" in cut["reason"]


def test_the_plan_names_what_exists(on_device, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["on_device.py", "--data=cifar10.npz"])
    checks, measurements = on_device.plan(on_device.parse_arguments())
    import device_part

    assert sorted(on_device.GOLDEN) == sorted(golden.OPTIONS)
    assert device_part.ROUNDING.keys() == golden.OPTIONS.keys()
    parts = [*checks, *measurements]
    assert len({part.name for part in parts}) == len(parts) == 8 + 12
    for part in parts:
        monkeypatch.setattr(sys, "argv", ["device_part.py", *part.arguments])
        assert device_part.parse_arguments().part in device_part.PARTS


def test_what_is_not_a_number_does_not_pass(on_device):
    from device_part import check

    assert check(1.0, most=1)["passed"] and check(1.0, least=1)["passed"]
    assert not check(float("nan"), most=1)["passed"]
    assert not check(1.1, most=1)["passed"] and not check(0.9, least=1)["passed"]


@pytest.mark.slow
def test_a_small_run_passes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 640), ("test", 200)):
        labels = np.arange(count) % 10
        noise = rng.integers(0, 100, (count, 32, 32, 3))
        arrays[f"{part}_images"] = (noise + 15 * labels[:, None, None, None]).astype(
            "u1"
        )
        arrays[f"{part}_labels"] = labels
    np.savez(tmp_path / "data.npz", **arrays)
    command = [sys.executable, str(SCRIPTS / "on_device.py"), "--small"]
    command += ["--data=data.npz", "--output=report.json", "--seconds=300"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    parts = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert len(parts) == 4
    assert {part["status"] for part in parts.values()} == {"passed"}


def rounded_error(name, monkeypatch, *, signals: int, operands: int) -> float:
    """Relative error of the logits of a float32 network with rounded numbers.

    signals: bits of the significand that are kept of what every layer returns, 23 for
    all; operands: those of images and kernels of convolutions.
    """
    tree, images, outputs = golden.load(name)
    model = golden.model_of(name)

    def rounded(x, bits):
        return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)

    def conv2d(x, kernel, *, exact=ws_conv.conv2d, **options):
        y = exact(rounded(x, operands), rounded(kernel, operands), **options)
        return rounded(y, signals)

    def intercept(method, arguments, keywords, context):
        y = method(*arguments, **keywords)
        is_signal = isinstance(y, jax.Array) and y.ndim == 4
        return rounded(y, signals) if is_signal else y

    @jax.jit
    def logits(params, images):
        with nn.intercept_methods(intercept):
            return model.apply({"params": params}, rounded(images, signals))

    monkeypatch.setattr(ws_conv, "conv2d", conv2d)
    found = np.asarray(logits(from_haiku(tree, model), images), np.float64)
    expected = outputs["logits"]
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


SOME = ("nf_resnet50_64", "fixup_resnet50_64")


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_tolerances_are_what_rounding_causes(name, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    from device_part import FLOAT32_ERROR, ROUNDING

    bfloat16 = rounded_error(name, monkeypatch, signals=7, operands=7)
    assert bfloat16 == pytest.approx(ROUNDING[name], rel=0.05)
    monkeypatch.undo()
    tf32 = rounded_error(name, monkeypatch, signals=23, operands=10)
    assert tf32 > 2 * FLOAT32_ERROR
