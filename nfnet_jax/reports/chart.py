"""Line charts as inline SVG, coloured by the page's style sheet.

What is under the pointer is read out by the style sheet too: no script runs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nfnet_jax.reports.axis import Axis, axis_from_zero, round_axis
from nfnet_jax.reports.elements import Element, append, element
from nfnet_jax.reports.units import number

_WIDTH, _HEIGHT = 400, 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 392.0, 24.0, 198.0
_MOST_PLACES = 120
_MOST_DOTS = 25
_LETTER, _ROW = 6.6, 15
COLOURS = 6


class Line(NamedTuple):
    """`y` [N] over `x` [N], both float64. `style`: "solid", "faint" or "dashed";
    `colour` is one of `COLOURS`, or -1 for that of the text."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int
    style: str = "solid"


class Titles(NamedTuple):
    """Of a chart and its axes; `text` writes a value of y, `counts` says that x has
    whole numbers only."""

    title: str
    x: str
    y: str
    text: Callable[[float], str] = number
    may_be_log: bool = True
    counts: bool = False


class _Point(NamedTuple):
    """What a line is at one place: means, and the extremes of what they are of."""

    x: float
    y: float
    low: float
    high: float


def line_chart(titles: Titles, lines: Sequence[Line]) -> Element:
    """A `figure`: title, chart with a description for those who cannot see it, legend.

    Of more than 120 places, neighbours are drawn as their mean in a band of their
    extremes. Values that are not finite are left out.
    """
    drawn = [line for line in map(_finite, lines) if len(line.x)]
    figure = element("figure", element("figcaption", titles.title), class_="chart")
    if not drawn:
        append(figure, [element("p", "nothing was logged", class_="note")])
        return figure
    x = axis_from_zero(np.concatenate([line.x for line in drawn]), _LEFT, _RIGHT - 6)
    y = round_axis(
        np.concatenate([line.y for line in drawn]), _BOTTOM, _TOP, titles.may_be_log
    )
    points = _gathered(drawn)
    svg = element(
        "svg",
        *_frame(titles, x, y),
        *(part for p in zip(drawn, points, strict=True) for part in _draw(*p, x, y)),
        *_readouts(titles, drawn, points, x, y),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=_description(titles, drawn),
    )
    append(figure, [svg, _legend(drawn)])
    return figure


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


def _frame(titles: Titles, x: Axis, y: Axis) -> list[Element]:
    """Grid lines, labels and the names of both axes."""
    parts = []
    for value in y.ticks():
        at = y.place(value)
        parts += [
            element("path", d=f"M{_LEFT:.0f},{at:.1f}H{_RIGHT:.0f}", class_="grid"),
            element("text", titles.text(value), x=_LEFT - 6, y=at + 4, class_="end"),
        ]
    for value in x.ticks():
        if titles.counts and value != round(value):
            continue
        at = x.place(value)
        parts += [
            element("path", d=f"M{at:.1f},{_BOTTOM:.0f}v4", class_="grid"),
            element("text", number(value), x=at, y=_BOTTOM + 16, class_="middle"),
        ]
    return [
        *parts,
        element("text", titles.y, x=0, y=12),
        element("text", titles.x, x=_RIGHT, y=_HEIGHT - 4, class_="end"),
    ]


def _draw(line: Line, points: dict[int, _Point], x: Axis, y: Axis) -> list[Element]:
    colour = f"c{line.colour}" if line.colour >= 0 else "ink"
    at = [(x.place(p.x), y.place(p.y)) for p in points.values()]
    parts = []
    if any(point.low < point.high for point in points.values()):
        over = [(x.place(p.x), y.place(p.high)) for p in points.values()]
        under = [(x.place(p.x), y.place(p.low)) for p in points.values()]
        outline = f"{_path([*over, *reversed(under)])}Z"
        parts.append(element("path", d=outline, class_=f"band {colour}"))
    parts.append(element("path", d=_path(at), class_=f"line {line.style} {colour}"))
    if line.style == "solid" and len(at) <= _MOST_DOTS or len(at) == 1:
        parts += [
            element("circle", cx=left, cy=top, r=2.5, class_=f"dot {colour}")
            for left, top in at
        ]
    return parts


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + " ".join(f"{left:.1f},{top:.1f}" for left, top in places)


def _readouts(
    titles: Titles,
    lines: Sequence[Line],
    points: Sequence[dict[int, _Point]],
    x: Axis,
    y: Axis,
) -> list[Element]:
    """For each place, the strip that is closest to it and the values there."""
    places = sorted(set().union(*points))
    there = [
        [(line, own[i]) for line, own in zip(lines, points, strict=True) if i in own]
        for i in places
    ]
    at = [x.place(found[0][1].x) for found in there]
    edges = [_LEFT, *((a + b) / 2 for a, b in zip(at, at[1:], strict=False)), _RIGHT]
    return [
        element(
            "g",
            element(
                "rect",
                x=left,
                y=_TOP,
                width=right - left,
                height=_BOTTOM - _TOP,
                class_="strip",
            ),
            _readout(titles, found, middle, y),
        )
        for left, right, middle, found in zip(edges, edges[1:], at, there, strict=False)
    ]


def _readout(titles: Titles, found: list[tuple[Line, _Point]], at: float, y: Axis):
    first = f"{titles.x} {number(found[0][1].x, 4)}"
    rows = [f"{line.name}: {titles.text(point.y)}" for line, point in found]
    width = _LETTER * max(map(len, (first, *rows))) + 10
    left = at + 8 if at < (_LEFT + _RIGHT) / 2 else at - 8 - width
    return element(
        "g",
        element("path", d=f"M{at:.1f},{_TOP:.0f}V{_BOTTOM:.0f}", class_="grid"),
        *(element("circle", cx=at, cy=y.place(p.y), r=3.5) for _, p in found),
        element("rect", x=left, y=_TOP, width=width, height=_ROW * len(found) + 22),
        *(
            element("text", text, x=left + 5, y=_TOP + 15 + _ROW * i)
            for i, text in enumerate((first, *rows))
        ),
        class_="tip",
    )


def _description(titles: Titles, lines: Sequence[Line]) -> str:
    """The chart in words."""
    text = titles.text
    parts = [
        f"{line.name}: {text(line.y[0])} at {number(line.x[0])}, "
        f"{text(line.y[-1])} at {number(line.x[-1])}, lowest {text(line.y.min())}, "
        f"highest {text(line.y.max())}."
        for line in lines
    ]
    return " ".join([f"{titles.title}: {titles.y} by {titles.x}.", *parts])


def _legend(lines: Sequence[Line]) -> Element:
    def key(line: Line) -> Element:
        colour = f"c{line.colour}" if line.colour >= 0 else "ink"
        sample = element("path", d="M1,4H23", class_=f"line {line.style} {colour}")
        svg = element("svg", sample, viewBox="0 0 24 8", aria_hidden="true")
        return element("li", svg, line.name)

    return element("ul", *map(key, lines), class_="legend")
