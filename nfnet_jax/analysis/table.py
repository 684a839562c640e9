"""Measurements for people and programs: a table, and a JSON object."""

import dataclasses
import operator
from typing import Any

import numpy as np

from nfnet_jax.analysis.diagnose import Deviation
from nfnet_jax.analysis.gradients import LayerGradient
from nfnet_jax.analysis.measure import Moments, Pooling, Signal
from nfnet_jax.analysis.theory import BlockPrediction
from nfnet_jax.utils.strict_json import strict

COLUMNS = "{:28} {:>10} {:>10} {:>10} {:>9} {:>12} {:>10}"
TITLES = "block,mean²,variance,predicted,ratio,branch input,branch".split(",")


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
        expected = (
            analysis.predictions[i].output_var if analysis.predictions else np.nan
        )
        entering = block.convs[0].input.var if block.convs else np.nan
        both = entering, block.branch_var
        lines.append(_row(block.name, block.output, expected, *both))
    lines += [
        f"{block.name}: 2x2 averages before the projection keep "
        f"{block.pooling.measured:.3f} of the variance; from the correlation of "
        f"neighbours: {block.pooling.predicted:.3f}"
        for block in signal.blocks
        if block.pooling
    ]
    if analysis.gradients:
        ordered = sorted(analysis.gradients, key=operator.attrgetter("ratio"))
        lines += [
            f"{which} gradient / weight norm: {g.ratio:.3g} in {g.name}, whose "
            f"gradient has norm {g.norm:.3g}"
            for which, g in (("smallest", ordered[0]), ("largest", ordered[-1]))
        ]
    return "\n".join(lines)


def to_json(analysis: Analysis, deviation: Deviation | None = None) -> dict[str, Any]:
    """An object for `strict_json.dumps`, with None for unknown values.

    `deviation` is the result of `check`.
    """
    signal = analysis.signal
    predictions = analysis.predictions or [None] * len(signal.blocks)
    blocks = [
        {
            "name": block.name,
            **_floats(block.output),
            "predicted_var": predicted and predicted.output_var,
            "branch_input_var": float(block.convs[0].input.var)
            if block.convs
            else None,
            "predicted_branch_input_var": predicted and predicted.branch_input_var,
            "branch_var": float(block.branch_var),
            "predicted_branch_var": predicted and predicted.branch_var,
            "pooling": block.pooling and _floats(block.pooling),
        }
        for block, predicted in zip(signal.blocks, predictions, strict=True)
    ]
    convolutions = [
        {
            "name": conv.name,
            "input": _floats(conv.input),
            "output": _floats(conv.output),
        }
        for conv in signal.layers
    ]
    return strict(
        {
            "name": analysis.name,
            "input": _floats(signal.blocks[0].input),
            "blocks": blocks,
            "convolutions": convolutions,
            "gradients": [gradient._asdict() for gradient in analysis.gradients or ()],
            "deviation": deviation and deviation._asdict(),
        }
    )


def _floats(values: Moments | Pooling) -> dict[str, float]:
    return {name: float(value) for name, value in values._asdict().items()}


def _row(name: str, moments, predicted=np.nan, branch_input=np.nan, branch=np.nan):
    ratio = moments.var / predicted
    values = (moments.sq_mean, moments.var, predicted, ratio, branch_input, branch)
    return COLUMNS.format(name, *("-" if np.isnan(x) else f"{x:.4g}" for x in values))
