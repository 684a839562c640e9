"""Measurements for people and programs: a table, and a JSON object."""

import dataclasses
from typing import Any

import numpy as np

from nfnet_jax.analysis.diagnose import Deviation
from nfnet_jax.analysis.gradients import LayerGradient
from nfnet_jax.analysis.measure import BlockSignal, Signal
from nfnet_jax.analysis.theory import BlockPrediction

COLUMNS = "{:28} {:>10} {:>10} {:>10} {:>9} {:>12} {:>10}"
TITLES = (
    "block",
    "mean²",
    "variance",
    "predicted",
    "ratio",
    "branch input",
    "branch",
)


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Measurements and predictions of one network, under a `name` for people.

    `predictions` are None where there is no β schedule to predict by, `gradients` where
    they were not measured.
    """

    name: str
    signal: Signal
    predictions: tuple[BlockPrediction, ...] | None = None
    gradients: tuple[LayerGradient, ...] | None = None


def table(analysis: Analysis) -> str:
    """Formats a line per block, one per pooled transition, and the extreme gradients.

    Moments are averages over channels. "branch input" is the variance of γ · act(x) / β
    before the first convolution, "branch" that of the branch before skip gain and α.
    """
    signal = analysis.signal
    start = signal.blocks[0].input
    lines = [COLUMNS.format(*TITLES), _row("input of the first block", start)]
    for i, block in enumerate(signal.blocks):
        expected = analysis.predictions[i] if analysis.predictions else None
        branch_input = block.convs[0].input.var if block.convs else np.nan
        lines.append(
            _row(
                block.name,
                block.output,
                expected.output_var if expected else np.nan,
                branch_input,
                block.branch_var,
            )
        )
    lines += [_pooling_line(block) for block in signal.blocks if block.pooling]
    return "\n".join(lines + _gradient_lines(analysis.gradients or ()))


def to_json(analysis: Analysis, deviation: Deviation | None = None) -> dict[str, Any]:
    """An object for `strict_json.dumps`, with None for unknown values.

    `deviation` is the result of `check`.
    """
    predictions = analysis.predictions or [None] * len(analysis.signal.blocks)
    return {
        "name": analysis.name,
        "input": _moments(analysis.signal.blocks[0].input),
        "blocks": [
            _block(block, predicted)
            for block, predicted in zip(
                analysis.signal.blocks, predictions, strict=True
            )
        ],
        "convolutions": [
            {
                "name": layer.name,
                "input": _moments(layer.input),
                "output": _moments(layer.output),
            }
            for layer in analysis.signal.layers
        ],
        "gradients": [gradient._asdict() for gradient in analysis.gradients or ()],
        "deviation": deviation and deviation._asdict(),
    }


def _block(block: BlockSignal, predicted: BlockPrediction | None) -> dict[str, Any]:
    return {
        "name": block.name,
        **_moments(block.output),
        "predicted_var": predicted and predicted.output_var,
        "branch_input_var": _number(block.convs[0].input.var) if block.convs else None,
        "predicted_branch_input_var": predicted and predicted.branch_input_var,
        "branch_var": _number(block.branch_var),
        "predicted_branch_var": predicted and predicted.branch_var,
        "pooling": block.pooling
        and {name: _number(share) for name, share in block.pooling._asdict().items()},
    }


def _moments(moments) -> dict[str, float | None]:
    return {"sq_mean": _number(moments.sq_mean), "var": _number(moments.var)}


def _number(value) -> float | None:
    """The number, or None for nan, which JSON has not."""
    return float(value) if np.isfinite(value) else None


def _row(name: str, moments, predicted=np.nan, branch_input=np.nan, branch=np.nan):
    values = (moments.sq_mean, moments.var, predicted, moments.var / predicted)
    texts = [_text(value) for value in (*values, branch_input, branch)]
    return COLUMNS.format(name, *texts)


def _text(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4g}"


def _pooling_line(block: BlockSignal) -> str:
    assert block.pooling is not None
    predicted, measured = block.pooling
    return (
        f"{block.name}: 2x2 averages before the projection keep {measured:.3f} of the "
        f"variance; from the correlation of neighbours: {predicted:.3f}"
    )


def _gradient_lines(gradients: tuple[LayerGradient, ...]) -> list[str]:
    if not gradients:
        return []
    ordered = sorted(gradients, key=lambda gradient: gradient.ratio)
    return [
        f"{which} gradient / weight norm: {g.ratio:.3g} in {g.name}, whose gradient "
        f"has norm {g.norm:.3g}"
        for which, g in (("smallest", ordered[0]), ("largest", ordered[-1]))
    ]
