"""Plans of runs against formulas, and the command that prints them."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import jax
import pytest
from data_sets import save_images

from nfnet_jax import plan
from nfnet_jax.config import base_config
from nfnet_jax.models.registry import find
from nfnet_jax.planning.abstract import data_shape
from nfnet_jax.planning.compile import Forecast, forecast
from nfnet_jax.planning.hardware import Hardware, predict
from nfnet_jax.utils.errors import UserError

DIGITS = pathlib.Path(__file__).parents[2] / "configs" / "digits.py"


def test_prediction_is_arithmetic():
    chip = Hardware(flops=1e12, memory=10.0, near=100.0, island=8, far=10.0)
    few = predict(chip, flops=7e12, sent=50.0, memory=10.0, devices=4)
    assert few.computing == pytest.approx(7e12 / 4 / 0.35e12)
    assert few.sending == 0.5 and few.fits
    assert few.seconds == few.computing + few.sending
    many = predict(chip, 7e12, 50.0, 11.0, 16, "float32")
    assert many.computing == pytest.approx(2 * 7e12 / 16 / 0.35e12)
    assert many.sending == 5.0 and not many.fits


def test_pmap_and_wrong_numbers_of_examples_and_devices_are_refused():
    config = base_config()
    config.data.batch_size = 2000
    with pytest.raises(UserError, match=r"; set --config.data.batch_size=1438$"):
        forecast(config)
    config.parallel.mode = "pmap"
    with pytest.raises(UserError, match="parallel.mode is 'pmap', expected 'jit'"):
        forecast(config)
    for text in ("0", "many", "5000"):
        with pytest.raises(UserError, match=rf"--devices is '{text}', expected"):
            plan.main(["plan", f"--config={DIGITS}", f"--devices={text}"])


def test_shapes_are_those_of_the_data(tmp_path):
    """Data that are here have their own shape; others a given or an assumed one."""
    config = base_config()
    assert data_shape(config)[:3] == ((8, 8, 1), 10, 1438)
    config.data.image_size = 12
    assert data_shape(config)[:3] == ((12, 12, 1), 10, 1438)
    save_images(tmp_path / "set", classes=3, images=5)
    config.data.name = f"folder:{tmp_path / 'set'}"
    assert data_shape(config)[:3] == ((12, 12, 3), 3, 12)
    assert data_shape(config, (28, 20, 1))[:3] == ((12, 12, 1), None, None)
    config.data.image_size = None
    assert data_shape(config, (28, 20, 1))[:3] == ((28, 20, 1), None, None)
    with pytest.raises(UserError, match="data.image_size is unset"):
        data_shape(config)
    config.data.name = f"folder:{tmp_path / 'absent'}"
    side = find(config.model.name).train_size
    found = data_shape(config)
    assert found[:3] == ((side, side, 3), None, None)
    assert found.source.startswith(f"assumed, as folder:{tmp_path / 'absent'} is not")


def test_small_numbers_are_not_printed_as_zero(tmp_path, capsys, monkeypatch):
    """The run of `configs/digits.py`, on whose images a step takes microseconds."""
    output = tmp_path / "plan.json"
    found = Forecast(
        devices=1,
        image_shape=(8, 8, 1),
        classes=10,
        source="of digits",
        parameters=312_180,
        optimizer=312_184,
        average=312_180,
        batch=4_350,
        working=4_010_000,
        flops=298_000_000,
        collectives={"all-reduce": 548_000.0},
        compile_seconds=1.0,
    )
    asked = []
    monkeypatch.setattr(
        "nfnet_jax.planning.compile.forecast",
        lambda *given: asked.append(given) or found,
    )
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    given = "--image_shape=28x20x1"
    plan.main(["plan", f"--config={DIGITS}", given, f"--output={output}"])
    assert asked[0][1] == (28, 20, 1)
    told = capsys.readouterr().out
    for words in ("8x8x1, of digits, 10 classes", "312 kB", "4.01 MB", "298 MFLOP"):
        assert words in told
    assert re.search(
        r"A100 80GB +7\.28 µs a step, 5\.46 µs computing and 1\.83 µs", told
    )
    assert not re.search(r"\b0(\.0+)? (s|ms|GB|MB|TFLOP)\b", told)
    assert json.loads(output.read_text())["parameters"] == 312_180


@pytest.mark.parametrize("text", ["28x28", "28,28,1", "0x28x1", "axbxc", "28x28x1x1"])
def test_shapes_have_one_form(text):
    with pytest.raises(UserError, match="--image_shape is .*HEIGHTxWIDTHxCHANNELS"):
        plan.main(["plan", f"--config={DIGITS}", f"--image_shape={text}"])


def test_memory_and_operations_of_a_deep_network_are_those_of_formulas():
    """Each of three stages has 100 blocks of two 3x3 convolutions C → C.

    Operations: 2 (a multiply-add) · 3 (forward, two gradients) · images · 9 C² a pixel
    and convolution. Memory: parameters, gradients, momentum, average and standardized
    kernels in float32; the images; and for each block, value by value, two float32
    arrays (the inputs of both convolutions) and a byte for each of two ReLUs. The
    output of the branch is not kept: the skip gain multiplies the kernel.
    """
    blocks, images = 100, 16
    stages = ((32, 16), (16, 32), (8, 64))
    config = base_config()
    config.model.name = f"nf_wrn_{6 * blocks + 4}_1"
    config.data.batch_size = images
    found = forecast(config, (32, 32, 3))
    convolutions = 2 * blocks * sum(9 * c**2 * side**2 for side, c in stages)
    assert found.flops == pytest.approx(2 * 3 * images * convolutions, rel=0.05)
    parameters = 2 * blocks * sum(9 * c**2 for _, c in stages)
    kept = blocks * sum(side**2 * c for side, c in stages) * (2 * 4 + 2 * 1)
    memory = 5 * 4 * parameters + images * (32 * 32 * 3 + kept)
    assert found.memory == pytest.approx(memory, rel=0.05)
    assert found.parameters == pytest.approx(4 * parameters, rel=0.05)
    assert found.optimizer == found.parameters + 4, "momentum, and a count of steps"
    assert found.average == found.parameters
    assert found.collectives == {}


@pytest.mark.slow
def test_nfnet_f5_on_256_devices(tmp_path):
    """Multiply-adds are the published 289.76 · 10⁹ at 544² (Brock et al. 2021,
    "High-performance large-scale image recognition without normalization", arXiv
    2102.06171), scaled to 416² pixels; three passes. Each device has 16 images, of
    which the gradient keeps 0.960 GB each (experiments/scaling) in bfloat16, at most
    three times that in a program for CPUs, which may keep a float32 tanh beside a
    bfloat16 number instead of computing it again, and float32 parameters, gradients,
    momentum and average. A ring sends gradients twice, but for a device's own part.
    """
    output = tmp_path / "plan.json"
    root = pathlib.Path(__file__).parents[2]
    started = time.monotonic()
    subprocess.run(
        [
            *(sys.executable, "-m", "nfnet_jax.plan", "--devices=256"),
            f"--config={root / 'configs/imagenet_nfnet.py'}:f5",
            f"--output={output}",
        ],
        env=os.environ | {"PYTHONPATH": str(root)},
        check=True,
    )
    assert time.monotonic() - started < 600
    found = json.loads(output.read_text())
    multiply_adds = 289.76e9 * (416 / 544) ** 2
    assert found["flops"] == pytest.approx(2 * 3 * 4096 * multiply_adds, rel=0.05)
    parameters = 377_214_144
    assert found["parameters"] == 4 * parameters
    kept = found["memory"] - 4 * 4 * parameters
    assert 16 * 0.960e9 < kept < 3 * 16 * 0.960e9
    sent = 2 * 4 * parameters * 255 / 256
    assert sum(found["collectives"].values()) == pytest.approx(sent, rel=0.01)


@pytest.mark.slow
def test_an_nfnet_f0_takes_less_than_half_of_the_memory_under_remat():
    """Memory is that of XLA's own analysis of the whole training step."""
    config = base_config()
    config.model.name = "nfnet_f0"
    config.data.batch_size = 32
    plain = forecast(config, (192, 192, 3)).working
    config.train.remat = "block"
    assert forecast(config, (192, 192, 3)).working < plain / 2
