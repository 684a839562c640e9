"""The charts of a page: how runs went, and what their networks do to the signal."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nfnet_jax.analysis import Signal
from nfnet_jax.reports.chart import COLOURS, Line, Titles, line_chart
from nfnet_jax.reports.elements import Element
from nfnet_jax.reports.measured import Measured
from nfnet_jax.reports.record import Record, Series
from nfnet_jax.reports.units import number


class _Curves(NamedTuple):
    """A chart of metrics: each a name and what the legend calls it."""

    title: str
    y: str
    metrics: tuple[tuple[str, str], ...]
    text: Callable[[float], str] = number
    may_be_log: bool = True


def _share(value: float) -> str:
    return number(100 * value, 4)


_CURVES = (
    _Curves(
        "Loss",
        "cross entropy (nats)",
        (
            ("test/loss", "test"),
            ("train/loss", "training"),
            ("test/loss_ema", "test, averaged"),
        ),
    ),
    _Curves(
        "Accuracy",
        "correct (%)",
        (
            ("test/accuracy", "test"),
            ("train/accuracy", "training"),
            ("test/accuracy_ema", "test, averaged"),
        ),
        _share,
        may_be_log=False,
    ),
    _Curves(
        "Learning rate", "rate", (("learning_rate", "learning rate"),), may_be_log=False
    ),
    _Curves(
        "Clip fraction",
        "units clipped by AGC (%)",
        (("train/clip_fraction", "clip fraction"),),
        _share,
        may_be_log=False,
    ),
    _Curves("Gradient norm", "norm before clipping", (("train/grad_norm", "norm"),)),
)


def curve_charts(records: Sequence[Record]) -> list[Element]:
    """How one run went, or several as overlaid lines in a colour each."""
    draw = _line_of_one if len(records) == 1 else _lines_of_several
    charts = []
    for curves in _CURVES:
        lines = draw(records, curves)
        if lines:
            titles = Titles(
                curves.title, "epoch", curves.y, curves.text, curves.may_be_log
            )
            charts.append(line_chart(titles, lines))
    return charts


def _line_of_one(records: Sequence[Record], curves: _Curves) -> list[Line]:
    (record,) = records
    return [
        _line(record, record.metrics[metric], name, colour, metric)
        for colour, (metric, name) in enumerate(curves.metrics)
        if metric in record.metrics
    ]


def _lines_of_several(records: Sequence[Record], curves: _Curves) -> list[Line]:
    """Of test and training; averages of parameters would be a third line each."""
    shown = curves.metrics[:2]
    return [
        _line(
            record,
            record.metrics[metric],
            f"{record.name}, {name}" if len(shown) > 1 else record.name,
            i % COLOURS,
            metric,
        )
        for i, record in enumerate(records)
        for metric, name in shown
        if metric in record.metrics
    ]


def _line(record: Record, series: Series, name: str, colour: int, metric: str) -> Line:
    style = "faint" if metric in ("train/loss", "train/accuracy") else "solid"
    return Line(name, record.epochs(series.steps), series.values, colour, style)


def signal_charts(measured: Measured) -> list[Element]:
    """Variance, squared mean and branch variance by depth, before and after training,
    beside what the β schedule predicts [SP, figures 1 and 2]."""
    signals = [
        (signal, name, colour)
        for colour, (signal, name) in enumerate(
            [(measured.start, "at initialization"), (measured.end, "trained")]
        )
        if signal is not None
    ]
    predictions = measured.predictions or ()

    def chart(title: str, y: str, of: Callable[[Signal], np.ndarray], predicted: str):
        lines = [
            Line(name, _depths(signal, of(signal)), of(signal), colour)
            for signal, name, colour in signals
        ]
        if predictions and predicted:
            values = np.asarray([getattr(p, predicted) for p in predictions])
            depths = np.arange(1.0, len(values) + 1)
            lines.append(Line("β schedule", depths, values, -1, "dashed"))
        return line_chart(Titles(title, "blocks passed", y, counts=True), lines)

    charts = [
        chart("Variance", "mean over channels", lambda s: s.avg_var, "output_var"),
        chart("Squared mean", "mean over channels", lambda s: s.avg_sq_mean, ""),
    ]
    if any(np.isfinite(signal.res_avg_var).any() for signal, _, _ in signals):
        charts.append(
            chart(
                "Branch variance",
                "before skip gain and α",
                lambda s: s.res_avg_var,
                "branch_var",
            )
        )
    return charts


def _depths(signal: Signal, values: np.ndarray) -> np.ndarray:
    """Blocks passed: from 0 for the signal, from 1 for branches."""
    last = len(signal.blocks)
    return np.arange(last + 1.0)[-len(values) :]
