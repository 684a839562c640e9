"""A network and images to measure it on, and what to say of a failed prediction."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nfnet_jax.analysis.diagnose import (
    LEFT,
    NO_CAUSE,
    Deviation,
    check,
    describe_images,
    describe_training,
    ratios,
)
from nfnet_jax.analysis.gradients import in_order, measure_gradients
from nfnet_jax.analysis.measure import Signal, measure
from nfnet_jax.analysis.table import Analysis
from nfnet_jax.analysis.theory import block_pattern, predict_network

DRAWS = 4
"""Further networks drawn to distinguish a fault from chance in few channels."""


class Subject(NamedTuple):
    """A network with its `variables`, and `images` with `labels` to measure it on.

    `train` is the network's argument. Nothing is predicted for a `trained` network or
    `real` images instead of noise. `draw(seed)` returns other initial variables.
    """

    name: str
    model: Any
    variables: Any
    images: Any
    labels: Any
    train: bool
    trained: bool
    real: bool
    draw: Callable[[int], Any] | None = None


def analyze(subject: Subject, with_gradients: bool) -> Analysis:
    """Measures the signal, and the gradients if asked for, beside the prediction."""
    signal = _measure(subject)
    gradients = None
    if with_gradients:
        inputs = subject.variables, subject.images, subject.labels
        gradients = measure_gradients(subject.model, *inputs, train=subject.train)
        gradients = in_order(gradients, signal)
    predictions = predict_network(subject.model, signal)
    return Analysis(subject.name, signal, predictions, gradients)


def judge(
    subject: Subject, analysis: Analysis, tolerance: float
) -> tuple[Deviation | None, str]:
    """Returns the deviation, None if there is none, and a line about it.

    Only a network at initialization on noise gets a cause. Borders and chance are found
    to be causes by measuring without borders, and by averaging over drawn networks.
    """
    assert analysis.predictions is not None
    deviation = check(analysis.signal, analysis.predictions, tolerance)
    within = f"check passed: every block is within {tolerance:.3g} of its prediction"
    if deviation is None:
        return None, within
    if subject.trained or subject.real:
        reasons = [describe_training(subject.variables)] if subject.trained else []
        reasons += [describe_images(subject.images)] if subject.real else []
        cause = (
            "Predicted is a network at initialization on white noise, so that this is "
            f"no fault by itself: {'; '.join(reasons)}"
        )
        deviation = deviation._replace(cause=cause)
        return deviation, f"not as predicted: {deviation}"
    fault, found = _check_inside(subject, tolerance)
    if fault is None:
        height, width = subject.images.shape[1:3]
        cause = (
            f"Cause: the borders of images this small, {height}x{width}, where zero "
            "padding takes variance"
        )
        within += " where convolutions find no zeros beyond the edges"
        return None, f"{within}; as it is, {deviation._replace(cause=cause)}"
    if not fault.cause.startswith(NO_CAUSE):
        return fault, f"check failed: {fault}"
    drawn = _draw_ratios(subject, found)
    error = abs(drawn.mean(0) - 1)
    if (error > tolerance + 2 * drawn.std(0, ddof=1) / len(drawn) ** 0.5).any():
        fault = fault._replace(cause=f"{NO_CAUSE}{LEFT}: other draws deviate too")
    if (error > tolerance).any():
        return fault, f"check failed: {fault}"
    cause = "Cause: chance, as the channels are few"
    within += f" on average of {1 + DRAWS} drawn networks"
    return None, f"{within}; of this one, {fault._replace(cause=cause)}"


def _measure(subject: Subject, **options: Any) -> Signal:
    return measure(
        subject.model,
        subject.variables,
        subject.images,
        blocks=block_pattern(subject.model),
        train=subject.train,
        **options,
    )


def _check_inside(
    subject: Subject, tolerance: float
) -> tuple[Deviation | None, np.ndarray]:
    """The deviation and all ratios [quantity], measured where borders take nothing."""
    signal = _measure(subject, borders=False)
    predictions = predict_network(subject.model, signal)
    assert predictions is not None
    return check(signal, predictions, tolerance), ratios(signal, predictions)


def _draw_ratios(subject: Subject, found: np.ndarray) -> np.ndarray:
    """The ratios `found`, and in further rows those of other draws of the network."""
    assert subject.draw is not None
    rows = [found]
    for seed in range(1, 1 + DRAWS):
        drawn = subject._replace(variables=subject.draw(2**31 + seed))
        rows.append(_check_inside(drawn, 1.0)[1])
    return np.stack(rows)
