"""Deviations of a network's signal from its prediction, and their causes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from nfnet_jax.analysis.measure import BlockSignal, Signal, moments, pooled_share
from nfnet_jax.analysis.theory import BlockPrediction

MEAN_SHIFT = 0.5
"""Share of the squared mean of its inputs that no standardized kernel passes on."""
LEAST_MEAN = 0.05
"""Squared mean that is large enough to see that."""
GAIN_RANGE = 1 / 1.4, 1.4
"""Factors between the variance after an activation and the expected one that chance
makes in a narrow network; that of a missing γ is γ², 1.6 at least."""
START_RANGE = 0.7, 1.4
"""Variances of a stem's output that chance makes of 3 channels of noise."""
UNEXPLAINED = 0.25
"""Share of its squared deviations that an explanation may leave."""
NO_CAUSE = "None of the known causes is seen: stem, kernels, γ and β look right. "
LEFT = "Left are α, the skip gains and the shortcut"
FEWEST_VALUES = 100
"""In a channel: the variance of fewer is known no better than a check needs."""
WHITE_SHARE = 0.25
"""Share of the variance of white noise that 2x2 averages leave."""


class Deviation(NamedTuple):
    """The first block that leaves its prediction, and the cause, as far as it is seen.

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
            f"{self.cause}"
        )


def check(
    signal: Signal, predictions: Sequence[BlockPrediction], tolerance: float = 0.1
) -> Deviation | None:
    """The first deviation by more than the share `tolerance`, None if there is none.

    Predictions hold for a network at initialization with open branches, on noise.
    Measure it with `borders=False`, or on large images (256 pixels): zero padding takes
    variance at the borders.
    """
    pairs = zip(signal.blocks, predictions, strict=True)
    for i, (block, predicted) in enumerate(pairs):
        for quantity, measured, expected in _rows(block, predicted):
            if not abs(measured / expected - 1) <= tolerance:
                cause = _cause(signal, predictions, i, tolerance)
                return Deviation(block.name, quantity, measured, expected, cause)
    return None


def ratios(signal: Signal, predictions: Sequence[BlockPrediction]) -> np.ndarray:
    """Measured / predicted [quantities] of all that `check` compares, in order."""
    rows = map(_rows, signal.blocks, predictions)
    return np.asarray([found / expected for row in rows for _, found, expected in row])


def _rows(
    block: BlockSignal, predicted: BlockPrediction
) -> list[tuple[str, float, float]]:
    """Quantities, as measured and as predicted."""
    rows = [
        ("branch input variance", _branch_input(block), predicted.branch_input_var),
        ("variance", float(block.output.var), predicted.output_var),
    ]
    if block.pooling:
        predicted_share, measured_share = map(float, block.pooling)
        rows.insert(0, ("pooled share", measured_share, predicted_share))
    return rows


def _branch_input(block: BlockSignal) -> float:
    return float(block.convs[0].input.var)


def _cause(
    signal: Signal, predictions: Sequence[BlockPrediction], index: int, tolerance: float
) -> str:
    blocks = signal.blocks[: index + 1]
    if 0 < blocks[-1].values < FEWEST_VALUES:
        return (
            f"No cause is named: a channel has only {blocks[-1].values} values there, "
            "too few to know its variance; take larger or more images"
        )
    cause = (
        _kernel_cause(blocks)
        or _activation_cause(blocks, predictions)
        or _beta_cause(signal.blocks, predictions, tolerance)
        or _stem_cause(signal.blocks[0])
    )
    return f"Cause: {cause}" if cause else f"{NO_CAUSE}{LEFT}, and chance"


def _kernel_cause(blocks: Sequence[BlockSignal]) -> str | None:
    """A kernel that passes the mean that its inputs share, as no standardized one does.

    A standardized filter has mean 0.
    """
    for conv in (conv for block in blocks for conv in block.convs):
        before, after = float(conv.input.sq_mean), float(conv.output.sq_mean)
        shared = before if conv.shared_mean is None else float(conv.shared_mean)
        if shared > LEAST_MEAN and after > before - (1 - MEAN_SHIFT) * shared:
            return (
                f"the kernel of {conv.name} is not standardized; it passes on a "
                f"squared mean of {after:.2g} of {before:.2g}"
            )
    return None


def _activation_cause(
    blocks: Sequence[BlockSignal], predictions: Sequence[BlockPrediction]
) -> str | None:
    """An activation without γ, where β is 1: in the first block, inside branches."""
    for i, (block, predicted) in enumerate(zip(blocks, predictions, strict=False)):
        found = [] if i else [(block.name, _branch_input(block), 1.0)]
        scale = predicted.branch_input_var
        # The branch's activations change its variance alike.
        inside = max(1, len(block.convs) - 1)
        expected = (predicted.branch_var / scale) ** (1 / inside)
        for conv, following in zip(block.convs, block.convs[1:], strict=False):
            variance, before = float(following.input.var), float(conv.output.var)
            found.append((following.name, variance / before * scale, expected))
        for name, variance, factor in found:
            ratio = variance / (scale * factor)
            if not GAIN_RANGE[0] < ratio < GAIN_RANGE[1]:
                return (
                    f"the activation before {name} lacks its γ or has another; the "
                    f"variance after it is {ratio:.2g} of what γ makes of it"
                )
    return None


def _beta_cause(
    blocks: Sequence[BlockSignal],
    predictions: Sequence[BlockPrediction],
    tolerance: float,
) -> str | None:
    """Wrong betas that explain the deviations; there may be several.

    log(Var(branch input) / prediction) is 2 log(β / divisor). A wrong β is a cause if
    it makes deviations above `tolerance`, and if the measured ones are like them.
    """
    found = np.log([_branch_input(block) for block in blocks])
    errors = found - np.log([p.branch_input_var for p in predictions])
    right = np.asarray([p.beta for p in predictions])
    causes = []
    for cause, used in _wrong_betas(right).items():
        made = 2 * np.log(right / used)
        left = np.square(errors - made).sum()
        explained = left < UNEXPLAINED * np.square(errors).sum()
        if explained and np.abs(made).max() > np.log1p(tolerance):
            causes.append(cause)
    return ", or ".join(causes)


def _wrong_betas(right: np.ndarray) -> dict[str, np.ndarray]:
    """Divisors that stand for the `right` β of every block by mistake."""
    squares = np.square(right)
    step = squares[1] - 1 if len(right) > 1 else 0.0
    # The block after a transition is divided by sqrt(1 + α²).
    transition = np.append(np.isclose(squares[1:], 1 + step), False)
    return {
        "β is the variance before the block, not its root": squares,
        "β is left out; nothing divides the branch's input": np.ones_like(right),
        "β is not reset where a stage begins; it grows on through the next stage": (
            np.sqrt(1 + step * np.arange(len(right)))
        ),
        "β is not reset as the signal is: a transition block is divided by 1, not by "
        "the last standard deviation of the stage before": np.where(
            transition, 1.0, right
        ),
    }


def _stem_cause(block: BlockSignal) -> str | None:
    variance = float(block.input.var)
    # After max pooling, the mean outweighs the variance.
    pooled = block.input.sq_mean > block.input.var
    if pooled or START_RANGE[0] < variance < START_RANGE[1]:
        return None
    return (
        f"the signal starts at a variance of {variance:.2g}, expected 1; the images "
        "are not normalized, or the stem is not standardized"
    )


def describe_training(variables: Any) -> str:
    """Words for the distance of trained gains from those that are predicted."""
    params = traverse_util.flatten_dict(variables["params"])
    gains = (("skip_gain", "skip gains"), ("gain", "gains of kernels"))
    ranges = [
        f"{name} are {_range(leaves)} instead of 1"
        for key, name in gains
        if (leaves := [leaf for path, leaf in params.items() if path[-1] == key])
    ]
    return f"the network is trained: {', '.join([*ranges, 'and its kernels moved'])}"


def describe_images(images: jax.Array) -> str:
    """Words for the difference of images [N, H, W, C] from unit white noise."""
    found = moments(images)
    text = (
        f"the images are no white noise: their variance is {float(found.var):.3g}, "
        f"their squared mean {float(found.sq_mean):.2g}"
    )
    if min(images.shape[1:3]) < 2:
        return text
    share = float(pooled_share(images))
    return f"{text}, and 2x2 averages keep {share:.2f} of it, of noise {WHITE_SHARE}"


def _range(leaves: list[jax.Array]) -> str:
    values = np.concatenate([np.ravel(leaf) for leaf in leaves])
    return f"{values.min():.2g} to {values.max():.2g}"
