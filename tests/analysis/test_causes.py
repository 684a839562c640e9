"""Diagnoses from the moments that ReLU networks with one fault have by calculation."""

import dataclasses
import math

import numpy as np
import pytest

from nfnet_jax.analysis import Signal, check, predict
from nfnet_jax.analysis.measure import BlockSignal, LayerSignal, Moments
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
                LayerSignal(
                    f"{name}/a", Moments(mean, entering), Moments(shift, entering)
                ),
                LayerSignal(
                    f"{name}/b", Moments(0.4 * inner, inner), Moments(shift, inner)
                ),
            )
            before = variance
            variance = (entering if i == 0 else variance) + ALPHA**2 * inner
            moments = Moments(0.0, before), Moments(0.0, variance)
            blocks.append(BlockSignal(name, *moments, inner, convs, None))
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


def test_chance_is_no_fault_of_beta():
    """Deviations of no pattern, as few channels make them, up to 30 %."""
    random = np.random.default_rng(0)
    for _ in range(200):
        betas = [np.asarray(stage) * random.uniform(0.87, 1.15, 7) for stage in RIGHT]
        assert "β is" not in deviation(betas).cause


def test_what_two_faults_would_make_is_not_told_apart():
    """Of one block a stage, whose β is wrong only by being left out or reset early."""
    signal = signal_of([[1.0]] * 6)
    found = check(signal, predict(signal, (1,) * 6, ALPHA), 0.01)
    assert "left out" in found.cause and ", or β is not reset" in found.cause


def test_a_mean_that_differs_by_channel_may_pass():
    """A standardized kernel filters what all channels share, and nothing else."""
    blocks = signal_of(beta_schedule(DEPTHS, ALPHA, "none")).blocks
    mean = Moments(0.4, 1.0)

    def with_mean(shared):
        convs = [
            [LayerSignal(c.name, mean, mean, shared) for c in b.convs] for b in blocks
        ]
        changed = [
            dataclasses.replace(block, convs=(of[0]._replace(input=was), *of[1:]))
            for block, of in zip(blocks, convs, strict=True)
            for was in [Moments(0.4, block.convs[0].input.var)]
        ]
        signal = Signal(tuple(changed), ())
        return check(signal, predict(signal, DEPTHS, ALPHA), 0.1).cause

    assert "not standardized" in with_mean(0.4)
    assert "not standardized" not in with_mean(0.01)


def test_few_values_tell_nothing():
    signal = signal_of(RIGHT, gamma=1.0)
    few = [dataclasses.replace(block, values=64) for block in signal.blocks]
    found = Signal(tuple(few), ())
    cause = check(found, predict(found, DEPTHS, ALPHA), 0.1).cause
    assert cause.startswith("No cause is named: a channel has only 64 values")


def test_the_right_network_passes():
    assert deviation(RIGHT) is None
