"""The plan of a run: against formulas, by the command itself."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from nfnet_jax import plan
from nfnet_jax.config import base_config
from nfnet_jax.errors import UserError
from nfnet_jax.training.forecast import forecast
from nfnet_jax.training.hardware import Hardware, predict

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


def test_pmap_and_wrong_numbers_of_devices_are_refused():
    config = base_config()
    config.parallel.mode = "pmap"
    with pytest.raises(UserError, match="parallel.mode is 'pmap', expected 'jit'"):
        forecast(config)
    for text in ("0", "many", "5000"):
        with pytest.raises(UserError, match=rf"--devices is '{text}', expected"):
            plan.main(["plan", f"--config={DIGITS}", f"--devices={text}"])


def test_memory_and_operations_of_a_deep_network_are_those_of_formulas():
    """Each of three stages has 100 blocks of two 3x3 convolutions C → C.

    Operations: 2 (a multiply-add) · 3 (forward, two gradients) · images · 9 C² a pixel
    and convolution. Memory: parameters, gradients, momentum, average and standardized
    kernels in float32; the images; and for each block, value by value, three float32
    arrays (the inputs of both convolutions, the output of the branch) and a byte for
    each of two ReLUs.
    """
    blocks, images = 100, 16
    stages = ((32, 16), (16, 32), (8, 64))
    config = base_config()
    config.model.name = f"nf_wrn_{6 * blocks + 4}_1"
    config.data.batch_size = images
    found = forecast(config)
    convolutions = 2 * blocks * sum(9 * c**2 * side**2 for side, c in stages)
    assert found.flops == pytest.approx(2 * 3 * images * convolutions, rel=0.05)
    parameters = 2 * blocks * sum(9 * c**2 for _, c in stages)
    kept = blocks * sum(side**2 * c for side, c in stages) * (3 * 4 + 2 * 1)
    memory = 5 * 4 * parameters + images * (32 * 32 * 3 + kept)
    assert found.memory == pytest.approx(memory, rel=0.05)
    assert found.parameters == pytest.approx(4 * parameters, rel=0.05)
    assert found.optimizer == found.parameters + 4, "momentum, and a count of steps"
    assert found.average == found.parameters
    assert found.collectives == {}


@pytest.mark.slow
def test_nfnet_f5_on_256_devices(tmp_path):
    """Multiply-adds are the published 289.76 · 10⁹ at 544² [HP], scaled to 416² pixels;
    three passes. Each device has 16 images, of which the gradient keeps 4.694 GB each
    (experiments/scaling), and float32 parameters, gradients, momentum and average. A
    ring sends gradients twice, but for a device's own part.
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
    memory = 4 * 4 * parameters + 16 * 4.694e9
    assert found["memory"] == pytest.approx(memory, rel=0.05)
    sent = 2 * 4 * parameters * 255 / 256
    assert sum(found["collectives"].values()) == pytest.approx(sent, rel=0.01)


@pytest.mark.slow
def test_an_nfnet_f0_takes_less_than_half_of_the_memory_under_remat():
    """By XLA's own analysis of the whole training step."""
    config = base_config()
    config.model.name = "nfnet_f0"
    config.data.image_size = 192
    config.data.batch_size = 32
    plain = forecast(config).working
    config.train.remat = "block"
    assert forecast(config).working < plain / 2
