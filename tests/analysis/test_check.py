"""A sound network passes; each deliberate breakage fails with its own diagnosis."""

import re

import jax
import numpy as np
import pytest
from drawn import open_variables

from nfnet_jax import create_model
from nfnet_jax.analysis import Signal, check, measure, predict, predict_network
from nfnet_jax.analysis.measure import BlockSignal, LayerSignal, Moments
from nfnet_jax.layers.residual import beta_schedule
from nfnet_jax.models import stage

# Seven blocks a stage: β reaches 1.13.
NAME, SHAPE = "nf_wrn_46_4", (4, 32, 32, 3)
DEPTHS, ALPHA = (7, 7, 7), 0.2


def checked(scale=1.0, **overrides):
    model = create_model(NAME, 10, **overrides)
    images = scale * jax.random.normal(jax.random.key(1), SHAPE)
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
        ({"scale": 1.5}, "stages_0/transition", "starts at a variance of 2.2"),
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


def cause_by_formula(betas, tolerance=0.1, mean=0.4, after=0.0, shared=None) -> str:
    """The cause named for blocks of two convolutions that are divided by `betas`.

    Convolutions have inputs of squared mean `mean`, of which `after` is left.
    """
    variance, blocks = 1.0, []
    for stage_betas in betas:
        for i, beta in enumerate(stage_betas):
            before, entering = variance, variance / beta**2
            variance = (entering if i == 0 else variance) + ALPHA**2 * entering
            moments = Moments(mean, entering), Moments(after, entering)
            convs = 2 * (LayerSignal("conv", *moments, shared),)
            outside = Moments(0.0, before), Moments(0.0, variance)
            blocks.append(BlockSignal("block", *outside, entering, convs, None))
    signal = Signal(tuple(blocks), ())
    return check(
        signal, predict(signal, tuple(map(len, betas)), ALPHA), tolerance
    ).cause


def test_chance_is_no_fault_of_beta():
    """Deviations of no pattern, as few channels make them, up to 30 %."""
    random = np.random.default_rng(0)
    right = beta_schedule(DEPTHS, ALPHA)
    for _ in range(200):
        betas = [np.asarray(stage) * random.uniform(0.87, 1.15, 7) for stage in right]
        assert "β is" not in cause_by_formula(betas)


def test_what_two_faults_would_make_is_not_told_apart():
    """Stages of one block, whose β is wrong only by being left out or reset early."""
    cause = cause_by_formula([[1.0]] * 6, 0.01)
    assert "left out" in cause and ", or β is not reset" in cause


def test_a_mean_that_differs_by_channel_may_pass():
    """A standardized kernel filters what all channels share, and nothing else."""
    betas = beta_schedule(DEPTHS, ALPHA, "none")
    assert "not standardized" in cause_by_formula(betas, after=0.4, shared=0.4)
    assert "not standardized" not in cause_by_formula(betas, after=0.4, shared=0.01)
