"""Diagnoses from the moments that ReLU networks with one fault have by calculation."""

import math

import numpy as np
import pytest

from nfnet_jax.analysis import Signal, check, predict
from nfnet_jax.analysis.moments import Moments
from nfnet_jax.analysis.signal import Block, Layer
from nfnet_jax.layers.residual import beta_schedule

DEPTHS, ALPHA = (7, 7, 7), 0.2
SHARE = (1 - 1 / math.pi) / 2
"""Variance that ReLU leaves of a unit normal; its squared mean is 1 / 2π."""


def signal_of(betas, gamma=SHARE**-0.5, passes_mean=False, start=1.0) -> Signal:
    """Blocks of two convolutions; kernels that are not standardized pass the mean on,
    which the second activation turns into variance here."""
    variance, blocks, shift = start, [], 0.0
    for stage, stage_betas in enumerate(betas):
        for i, beta in enumerate(stage_betas):
            name = f"stages_{stage}/block{i}"
            entering = gamma**2 * SHARE * variance / beta**2
            mean = gamma**2 * variance / beta**2 / (2 * math.pi)
            shift = mean if passes_mean else 0.0
            inner = gamma**2 * SHARE * (entering + shift)
            convs = (
                Layer(f"{name}/a", Moments(mean, entering), Moments(shift, entering)),
                Layer(f"{name}/b", Moments(0.4 * inner, inner), Moments(shift, inner)),
            )
            before = variance
            variance = (entering if i == 0 else variance) + ALPHA**2 * inner
            moments = Moments(0.0, before), Moments(0.0, variance)
            blocks.append(Block(name, *moments, inner, convs, None))
    return Signal(tuple(blocks), ())


def deviation(betas, **faults):
    signal = signal_of(betas, **faults)
    return check(signal, predict(signal, DEPTHS, ALPHA), 0.1)


RIGHT = beta_schedule(DEPTHS, ALPHA)
GROWING = np.split(np.sqrt(1 + ALPHA**2 * np.arange(21)), 3)
EARLY = [[math.sqrt(1 + ALPHA**2 * i) for i in range(7)]] * 3


@pytest.mark.parametrize(
    ("betas", "faults", "block", "cause"),
    [
        (RIGHT, {"gamma": 1.0}, "stages_0/block0", "lacks its γ"),
        (RIGHT, {"passes_mean": True}, "stages_0", "block0/a is not standardized"),
        (beta_schedule(DEPTHS, ALPHA, "var"), {}, "stages_0/block3", "is the variance"),
        (beta_schedule(DEPTHS, ALPHA, "none"), {}, "stages_0/block3", "left out"),
        (GROWING, {}, "stages_1/block1", "not reset"),
        (EARLY, {}, "stages_1/block0", "not reset"),
        (RIGHT, {"start": 1.5}, "stages_0/block0", "starts at a variance of 1.5"),
    ],
    ids=["gamma", "kernel", "variance", "none", "no reset", "early reset", "stem"],
)
def test_every_fault_has_its_diagnosis(betas, faults, block, cause):
    found = deviation(betas, **faults)
    assert cause in found.cause
    assert found.block.startswith(block)


def test_the_right_network_passes():
    assert deviation(RIGHT) is None
