"""The plan of a run: against formulas, by the command itself."""

import pathlib

import pytest

from nfnet_jax.config import base_config
from nfnet_jax.errors import UserError
from nfnet_jax.plan import _count
from nfnet_jax.training.forecast import forecast
from nfnet_jax.training.hardware import Hardware, predict

ROOT = pathlib.Path(__file__).parents[2]


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
            _count(text)
