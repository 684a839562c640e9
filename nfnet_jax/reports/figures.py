"""Charts of a page: the metrics of runs, and the signal in their networks.

matplotlib draws them. The values at each place are drawn over them by the template of
the page and shown by its style sheet under the pointer, so that no script is needed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from nfnet_jax.analysis import Signal
from nfnet_jax.reports.measured import Measured
from nfnet_jax.reports.record import Record, Series
from nfnet_jax.utils import figures
from nfnet_jax.utils.units import number

_MOST_PLACES = 120
_MOST_DOTS = 25
_LETTER, _ROW = 5.6, 12.5
"""Points that a letter and a row of a reading take."""


class Line(NamedTuple):
    """`y` [N] over `x` [N], both float64. `style`: "solid", "faint" or "dashed";
    `colour` is a place in `figures.COLOURS`, or -1 for that of the text."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int
    style: str = "solid"

    @property
    def variable(self) -> str:
        """The colour as the style sheet of the page calls it."""
        return f"--c{self.colour}" if self.colour >= 0 else "--text"


class Titles(NamedTuple):
    """Names of a chart and its axes, with units; `counts`: x has whole numbers only.

    `named_in_chart`: the names of lines stand at their ends, not in a legend.
    """

    title: str
    x: str
    y: str
    may_be_log: bool = True
    counts: bool = False
    named_in_chart: bool = True


class Reading(NamedTuple):
    """Values at one place `x`, shown while the pointer is in the strip from `left`.

    All coordinates and widths are points; `dots` are the heights of the lines.
    """

    x: float
    left: float
    width: float
    dots: tuple[float, ...]
    texts: tuple[str, ...]
    text_left: float
    text_width: float
    text_height: float


class Chart(NamedTuple):
    """A drawn chart, as the template of the page needs it.

    `svg` stands inside an <svg> of `width` by `height` points, whose panel lies between
    `top` and `bottom`; it is empty where there is nothing to draw.
    """

    title: str
    svg: Markup = Markup("")
    description: str = ""
    width: float = 0.0
    height: float = 0.0
    top: float = 0.0
    bottom: float = 0.0
    readings: tuple[Reading, ...] = ()
    legend: tuple[Line, ...] = ()


class _Point(NamedTuple):
    """A line at one place: means, and the extremes of the values behind them."""

    x: float
    y: float
    low: float
    high: float


def line_chart(titles: Titles, lines: Sequence[Line], prefix: str) -> Chart:
    """Draws `lines`; `prefix` distinguishes the ids of this chart from the others'.

    Of more than 120 places, neighbours are drawn as their mean in a band of their
    extremes. Values that are not finite are left out.
    """
    drawn = [line for line in map(_finite, lines) if len(line.x)]
    if not drawn:
        return Chart(titles.title)
    points = _gathered(drawn)
    figure, ((panel,),) = figures.subplots()
    figures.name_axes(panel, titles.x, titles.y, titles.counts)
    for line, own in zip(drawn, points, strict=True):
        _draw(panel, line, own)
    _scale(panel, titles, drawn)
    named = titles.named_in_chart and len(drawn) > 1
    if named:
        figures.label_lines(panel)
    svg = Markup(figures.inline_svg(figure, prefix))
    width, height = map(float, 72 * figure.get_size_inches())
    return Chart(
        titles.title,
        svg,
        _description(titles, drawn),
        width,
        height,
        height - float(panel.bbox.y1),
        height - float(panel.bbox.y0),
        _readings(titles, drawn, points, panel),
        () if named or len(drawn) == 1 else tuple(drawn),
    )


def _finite(line: Line) -> Line:
    kept = np.isfinite(line.x) & np.isfinite(line.y)
    return line._replace(x=line.x[kept], y=line.y[kept])


def _gathered(lines: Sequence[Line]) -> list[dict[int, _Point]]:
    """The points of each line, by their place among those of all."""
    places = np.unique(np.concatenate([line.x for line in lines]))
    low, high = places[0], places[-1]
    few = len(places) <= _MOST_PLACES

    def place(x: np.ndarray) -> np.ndarray:
        if few:
            return np.searchsorted(places, x)
        share = (x - low) / (high - low)
        return np.minimum(share * _MOST_PLACES, _MOST_PLACES - 1).astype(int)

    found = []
    for line in lines:
        at = place(line.x)
        groups = {i: at == i for i in np.unique(at).tolist()}
        found.append({i: _point(line.x[g], line.y[g]) for i, g in groups.items()})
    return found


def _point(x: np.ndarray, y: np.ndarray) -> _Point:
    return _Point(*map(float, (x.mean(), y.mean(), y.min(), y.max())))


def _draw(panel, line: Line, points: dict[int, _Point]) -> None:
    colour = figures.COLOURS[line.colour] if line.colour >= 0 else figures.INK
    x, y, low, high = zip(*points.values(), strict=True)
    if low != high:
        panel.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    dotted = line.style == "solid" and len(x) <= _MOST_DOTS or len(x) == 1
    panel.plot(
        x,
        y,
        color=colour,
        linestyle="--" if line.style == "dashed" else "-",
        linewidth=1.6 if line.style == "solid" else 1.2,
        alpha=0.65 if line.style == "faint" else None,
        marker="o" if dotted else None,
        markersize=4,
        label=line.name,
    )


def _scale(panel, titles: Titles, lines: Sequence[Line]) -> None:
    """Scales x from 0 and y to all values, and labels round ones."""
    # The values behind the means, for their bands.
    values = np.concatenate([line.y for line in lines])
    figures.fit_values(panel, values, titles.may_be_log)
    last = max(line.x.max() for line in lines) or 1.0
    panel.set_xlim(-0.01 * last, 1.01 * last)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(lambda value, _: number(value, 4))


def _readings(
    titles: Titles,
    lines: Sequence[Line],
    points: Sequence[dict[int, _Point]],
    panel,
) -> tuple[Reading, ...]:
    """One for each place; their strips tile the panel."""
    height = panel.figure.bbox.height
    places = sorted(set().union(*points))
    there = [
        [(line, own[i]) for line, own in zip(lines, points, strict=True) if i in own]
        for i in places
    ]
    at = [panel.transData.transform([(p.x, p.y) for _, p in found]) for found in there]
    middles = [float(spots[0, 0]) for spots in at]
    between = [(a + b) / 2 for a, b in zip(middles, middles[1:], strict=False)]
    edges = [float(panel.bbox.x0), *between, float(panel.bbox.x1)]
    readings = []
    for found, spots, x, left, right in zip(
        there, at, middles, edges, edges[1:], strict=False
    ):
        texts = (
            f"{titles.x} {number(found[0][1].x, 4)}",
            *(f"{line.name}: {number(point.y, 4)}" for line, point in found),
        )
        width = _LETTER * max(map(len, texts)) + 8
        readings.append(
            Reading(
                x,
                left,
                right - left,
                tuple((height - spots[:, 1]).tolist()),
                texts,
                x + 7 if x < panel.bbox.x0 + panel.bbox.width / 2 else x - 7 - width,
                width,
                _ROW * len(texts) + 5,
            )
        )
    return tuple(readings)


def _description(titles: Titles, lines: Sequence[Line]) -> str:
    """The chart in words."""
    parts = [
        f"{line.name}: {number(line.y[0], 4)} at {number(line.x[0])}, "
        f"{number(line.y[-1], 4)} at {number(line.x[-1])}, lowest "
        f"{number(line.y.min(), 4)}, highest {number(line.y.max(), 4)}."
        for line in lines
    ]
    return " ".join([f"{titles.title}: {titles.y} by {titles.x}.", *parts])


class _Curves(NamedTuple):
    """A chart of metrics, each with its name in the chart; `scale` to the unit `y`."""

    title: str
    y: str
    metrics: tuple[tuple[str, str], ...]
    scale: float = 1.0
    may_be_log: bool = True


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
        100,
        may_be_log=False,
    ),
    _Curves(
        "Learning rate", "rate", (("learning_rate", "learning rate"),), may_be_log=False
    ),
    _Curves(
        "Clip fraction",
        "units clipped by AGC (%)",
        (("train/clip_fraction", "clip fraction"),),
        100,
        may_be_log=False,
    ),
    _Curves("Gradient norm", "norm before clipping", (("train/grad_norm", "norm"),)),
)


def curve_charts(records: Sequence[Record]) -> list[Chart]:
    """Metrics of one run, or those of several as overlaid lines in a colour each."""
    one = len(records) == 1
    charts: list[Chart] = []
    for curves in _CURVES:
        lines = _lines_of_one(records[0], curves) if one else _overlaid(records, curves)
        if lines:
            titles = Titles(
                curves.title, "epoch", curves.y, curves.may_be_log, named_in_chart=one
            )
            charts.append(line_chart(titles, lines, f"curve{len(charts)}"))
    return charts


def _lines_of_one(record: Record, curves: _Curves) -> list[Line]:
    return [
        _line(record, metric, name, colour, curves.scale)
        for colour, (metric, name) in enumerate(curves.metrics)
        if metric in record.metrics
    ]


def _overlaid(records: Sequence[Record], curves: _Curves) -> list[Line]:
    """Test and training; averages of parameters would be a third line each."""
    shown = curves.metrics[:2]
    return [
        _line(
            record,
            metric,
            f"{record.name}, {name}" if len(shown) > 1 else record.name,
            i % len(figures.COLOURS),
            curves.scale,
        )
        for i, record in enumerate(records)
        for metric, name in shown
        if metric in record.metrics
    ]


def _line(record: Record, metric: str, name: str, colour: int, scale: float) -> Line:
    series: Series = record.metrics[metric]
    style = "faint" if metric in ("train/loss", "train/accuracy") else "solid"
    epochs = record.epochs(series.steps)
    return Line(name, epochs, scale * series.values, colour, style)


def signal_charts(measured: Measured, prefix: str) -> list[Chart]:
    """Variance, squared mean and branch variance by depth, before and after training.

    The β schedule's predictions stand beside them: the signal propagation plot of
    Brock, De, Smith, "Characterizing signal propagation to close the performance gap
    in unnormalized ResNets", arXiv 2101.08692.
    """
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
        titles = Titles(title, "blocks passed", y, counts=True)
        return line_chart(titles, lines, f"{prefix}-{title.replace(' ', '-')}")

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
