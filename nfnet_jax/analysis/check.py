"""Does a network keep its signal as predicted, and if not, why?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nfnet_jax.analysis.predict import Prediction
from nfnet_jax.analysis.signal import Block, Signal

MEAN_SHIFT = 0.5
"""Share of its squared input mean that no standardized kernel passes on."""
LEAST_MEAN = 0.05
"""Squared input mean that is large enough to see that."""
GAIN_RANGE = 0.6, 1.6
"""Factors of the variance that a γ-scaled activation stays between."""
UNEXPLAINED = 0.25
"""Share of its squared deviations that an explanation may leave."""


class Deviation(NamedTuple):
    """The first block that leaves its prediction, and the usual cause.

    `quantity` is "variance" (after the block), "branch input variance" or "pooled
    share".
    """

    block: str
    quantity: str
    measured: float
    predicted: float
    cause: str

    def __str__(self) -> str:
        return (
            f"{self.block}: {self.quantity} {self.measured:.3g}, predicted "
            f"{self.predicted:.3g} ({self.measured / self.predicted:.2f} of it). "
            f"Usual cause: {self.cause}"
        )


def check(
    signal: Signal, predictions: Sequence[Prediction], tolerance: float = 0.1
) -> Deviation | None:
    """The first deviation by more than the share `tolerance`, None if there is none.

    Images should be large (256 pixels): zero padding takes variance at the borders.
    """
    for i, (block, predicted) in enumerate(
        zip(signal.blocks, predictions, strict=True)
    ):
        rows = [
            ("branch input variance", _branch_input(block), predicted.branch_input_var),
            ("variance", float(block.output.var), predicted.output_var),
        ]
        if block.pooling:
            predicted_share, measured_share = map(float, block.pooling)
            rows.insert(0, ("pooled share", measured_share, predicted_share))
        for quantity, measured, expected in rows:
            if not abs(measured / expected - 1) <= tolerance:
                cause = _cause(signal, predictions, i)
                return Deviation(block.name, quantity, measured, expected, cause)
    return None


def _branch_input(block: Block) -> float:
    return float(block.convs[0].input.var)


def _cause(signal: Signal, predictions: Sequence[Prediction], index: int) -> str:
    blocks = signal.blocks[: index + 1]
    return (
        _kernel_cause(blocks)
        or _gamma_cause(blocks, predictions)
        or _beta_cause(signal.blocks, predictions)
        or _stem_cause(signal.blocks[0])
        or "none of the known ones; β, γ and the kernels look right, so look at α, the "
        "skip gains and the shortcut"
    )


def _kernel_cause(blocks: Sequence[Block]) -> str | None:
    """A standardized filter has mean 0: what all its inputs share does not pass."""
    for conv in (conv for block in blocks for conv in block.convs):
        before, after = float(conv.input.sq_mean), float(conv.output.sq_mean)
        if before > LEAST_MEAN and after > MEAN_SHIFT * before:
            return (
                f"the kernel of {conv.name} is not standardized; it passes on a "
                f"squared mean of {after:.2g} of {before:.2g}"
            )
    return None


def _gamma_cause(
    blocks: Sequence[Block], predictions: Sequence[Prediction]
) -> str | None:
    """In the first block β is 1; inside branches it plays no part."""
    first = _branch_input(blocks[0]) / predictions[0].branch_input_var
    gains = [(blocks[0].name, first)]
    for block in blocks:
        for conv, following in zip(block.convs, block.convs[1:], strict=False):
            factor = float(following.input.var / conv.output.var)
            gains.append((following.name, factor))
    for name, factor in gains:
        if not GAIN_RANGE[0] < factor < GAIN_RANGE[1]:
            return (
                f"the activation before {name} lacks its γ; it multiplies the variance "
                f"by {factor:.2g}"
            )
    return None


def _beta_cause(
    blocks: Sequence[Block], predictions: Sequence[Prediction]
) -> str | None:
    """log(Var(branch input) / prediction) is -2 log β where β is squared, 2 log β where
    it is left out, and neither where it is right for another block."""
    found = np.log([_branch_input(block) for block in blocks])
    errors = found - np.log([p.branch_input_var for p in predictions])
    if np.abs(errors).max() < 0.05:
        return None
    twice = 2 * np.log([p.beta for p in predictions])
    left = {
        "β is the variance before the block, not its root": errors + twice,
        "β is left out; nothing divides the branch's input": errors - twice,
    }
    cause = min(left, key=lambda name: np.square(left[name]).sum())
    if np.square(left[cause]).sum() < UNEXPLAINED * np.square(errors).sum():
        return cause
    return (
        "β is not reset as the signal is: a transition block is divided by the last "
        "standard deviation of the stage before, the block after it by sqrt(1 + α²)"
    )


def _stem_cause(block: Block) -> str | None:
    variance = float(block.input.var)
    if abs(variance - 1) < 0.1:
        return None
    return (
        f"the signal starts at a variance of {variance:.2g}, expected 1; the images "
        "are not normalized, or the stem is not standardized"
    )
