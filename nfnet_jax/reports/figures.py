"""Charts of a page: the metrics of runs, and the signal in their networks.

matplotlib draws them. The values at each place are drawn over them by the template of
the page and shown by its style sheet under the pointer, so that no script is needed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from nfnet_jax.reports.measured import Measured
from nfnet_jax.reports.record import Record
from nfnet_jax.utils import figures
from nfnet_jax.utils.units import number

_MOST_PLACES = 120
_MOST_DOTS = 25
_LETTER = 5.6
"""Points that a letter of a reading takes."""


class Line(NamedTuple):
    """`y` [N] over `x` [N], both float64. `style`: "solid", "faint" or "dashed";
    `colour` is a place in `figures.COLOURS`, or -1 for that of the text."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int
    style: str = "solid"


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
    drawn = []
    for line in lines:
        kept = np.isfinite(line.x) & np.isfinite(line.y)
        if kept.any():
            drawn.append(line._replace(x=line.x[kept], y=line.y[kept]))
    if not drawn:
        return Chart(titles.title)
    points = _gathered(drawn)
    figure, ((panel,),) = figures.subplots()
    figures.name_axes(panel, titles.x, titles.y, titles.counts)
    for line, own in zip(drawn, points, strict=True):
        _draw(panel, line, own)
    # The values behind the means, for their bands.
    values = np.concatenate([line.y for line in drawn])
    figures.fit_values(panel, values, titles.may_be_log)
    last = max(line.x.max() for line in drawn) or 1.0
    panel.set_xlim(-0.01 * last, 1.01 * last)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(lambda value, _: number(value, 4))
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


def _gathered(lines: Sequence[Line]) -> list[dict[int, _Point]]:
    """The points of each line, by their place among those of all."""
    places = np.unique(np.concatenate([line.x for line in lines]))
    if len(places) > _MOST_PLACES:
        # Left ends of strips of one width.
        places = np.linspace(places[0], places[-1], _MOST_PLACES, endpoint=False)
    found: list[dict[int, _Point]] = []
    for line in lines:
        at = np.searchsorted(places, line.x, "right") - 1
        found.append({})
        for i in np.unique(at).tolist():
            x, y = line.x[at == i], line.y[at == i]
            values = map(float, (x.mean(), y.mean(), y.min(), y.max()))
            found[-1][i] = _Point(*values)
    return found


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
    for i, (found, spots, x) in enumerate(zip(there, at, middles, strict=True)):
        texts = (
            f"{titles.x} {number(found[0][1].x, 4)}",
            *(f"{line.name}: {number(point.y, 4)}" for line, point in found),
        )
        width = _LETTER * max(map(len, texts)) + 8
        readings.append(
            Reading(
                x,
                edges[i],
                edges[i + 1] - edges[i],
                tuple((height - spots[:, 1]).tolist()),
                texts,
                x + 7 if x < panel.bbox.x0 + panel.bbox.width / 2 else x - 7 - width,
                width,
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


def _scores(name: str) -> dict[str, str]:
    return {
        f"test/{name}": "test",
        f"train/{name}": "training",
        f"test/{name}_ema": "test, averaged",
    }


_CURVES: tuple[tuple[Titles, dict[str, str], float], ...] = (
    (Titles("Loss", "epoch", "cross entropy (nats)"), _scores("loss"), 1),
    (Titles("Accuracy", "epoch", "correct (%)", False), _scores("accuracy"), 100),
    (
        Titles("Learning rate", "epoch", "rate", False),
        {"learning_rate": "learning rate"},
        1,
    ),
    (
        Titles("Clip fraction", "epoch", "units clipped by AGC (%)", False),
        {"train/clip_fraction": "clip fraction"},
        100,
    ),
    (
        Titles("Gradient norm", "epoch", "norm before clipping"),
        {"train/grad_norm": "norm"},
        1,
    ),
)
"""Charts: titles, metrics and their names in the chart, factor to the unit of y."""


def curve_charts(records: Sequence[Record]) -> list[Chart]:
    """Metrics of one run, or those of several as overlaid lines in a colour each."""
    charts: list[Chart] = []
    for titles, metrics, scale in _CURVES:
        lines = _lines(records, metrics, scale)
        if lines:
            titles = titles._replace(named_in_chart=len(records) == 1)
            charts.append(line_chart(titles, lines, f"curve{len(charts)}"))
    return charts


def _lines(
    records: Sequence[Record], metrics: dict[str, str], scale: float
) -> list[Line]:
    """A colour for each metric of one run, or for each of several runs."""
    one = len(records) == 1
    # Averages of parameters would be a third line for each of several runs.
    shown = list(metrics.items())[: None if one else 2]
    lines = []
    for i, record in enumerate(records):
        for j, (metric, name) in enumerate(shown):
            if metric not in record.metrics:
                continue
            series = record.metrics[metric]
            if not one:
                name = f"{record.name}, {name}" if len(shown) > 1 else record.name
            lines.append(
                Line(
                    name,
                    record.epochs(series.steps),
                    scale * series.values,
                    j if one else i % len(figures.COLOURS),
                    "faint" if metric in ("train/loss", "train/accuracy") else "solid",
                )
            )
    return lines


def signal_charts(measured: Measured, prefix: str) -> list[Chart]:
    """Variance, squared mean and branch variance by depth, before and after training.

    The β schedule's predictions stand beside them: the signal propagation plot of
    Brock, De, Smith, "Characterizing signal propagation to close the performance gap
    in unnormalized ResNets", arXiv 2101.08692.
    """
    charts = []
    for title, y, name, predicted in (
        ("Variance", "mean over channels", "avg_var", "output_var"),
        ("Squared mean", "mean over channels", "avg_sq_mean", ""),
        ("Branch variance", "before skip gain and α", "res_avg_var", "branch_var"),
    ):
        lines = []
        ends = (measured.start, "at initialization"), (measured.end, "trained")
        for colour, (signal, when) in enumerate(ends):
            if signal is not None:
                values = getattr(signal, name)
                # Blocks passed: from 0 for the signal, from 1 for branches.
                depths = np.arange(len(signal.blocks) + 1.0)[-len(values) :]
                lines.append(Line(when, depths, values, colour))
        if name == "res_avg_var" and not any(np.isfinite(x.y).any() for x in lines):
            continue
        if measured.predictions and predicted:
            values = np.asarray([getattr(p, predicted) for p in measured.predictions])
            depths = np.arange(1.0, len(values) + 1)
            lines.append(Line("β schedule", depths, values, -1, "dashed"))
        titles = Titles(title, "blocks passed", y, counts=True)
        charts.append(line_chart(titles, lines, f"{prefix}-{title.replace(' ', '-')}"))
    return charts
