"""A sound network passes; each deliberate breakage fails with its own diagnosis."""

import re

import jax
import numpy as np
import pytest
from drawn import open_variables

from nfnet_jax import create_model
from nfnet_jax.analysis import check, measure, predict_network
from nfnet_jax.models import stage

# Seven blocks a stage: β reaches 1.13.
NAME, SHAPE = "nf_wrn_46_4", (4, 32, 32, 3)


def checked(**overrides):
    model = create_model(NAME, 10, **overrides)
    images = jax.random.normal(jax.random.key(1), SHAPE)
    signal = measure(model, open_variables(model, images), images, borders=False)
    return check(signal, predict_network(model, signal), 0.1)


def without_reset(depths, alpha, beta="std"):
    before = 1 + alpha**2 * np.arange(sum(depths))
    return np.split(np.sqrt(before), np.cumsum(depths)[:-1])


def reset_too_early(depths, alpha, beta="std"):
    return [list(np.sqrt(1 + alpha**2 * np.arange(depth))) for depth in depths]


def test_a_sound_network_passes():
    assert checked() is None


@pytest.mark.parametrize(
    ("overrides", "block", "cause"),
    [
        ({"gamma": "none"}, "stages_0/transition", "lacks its γ"),
        (
            {"weight_standardization": False},
            r"stages_0/blocks\[0\]",
            "stages_0/transition/branch/conv0 is not standardized",
        ),
        # 1 / 1.12 and 1.12 of the prediction before blocks[2], whose neighbours differ
        # from it by 4 %, as little as what one batch of noise does.
        ({"beta": "var"}, r"stages_0/blocks\[[1-3]\]", "β is the variance"),
        ({"beta": "none"}, r"stages_0/blocks\[[1-3]\]", "β is left out"),
    ],
    ids=str,
)
def test_breakages_are_diagnosed(overrides, block, cause):
    deviation = checked(**overrides)
    assert cause in deviation.cause
    assert re.fullmatch(block, deviation.block)


@pytest.mark.parametrize("schedule", [without_reset, reset_too_early])
def test_a_wrong_reset_is_diagnosed(schedule, monkeypatch):
    monkeypatch.setattr(stage, "beta_schedule", schedule)
    deviation = checked()
    assert "β is not reset" in deviation.cause
    assert deviation.block.startswith("stages_1/")
