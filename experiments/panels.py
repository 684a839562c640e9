"""Figures of the experiments: panels of lines in colours that all can tell apart."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
BLACK = {"color": "black", "lw": 1, "ls": "--"}
Points = tuple[Sequence[float], Sequence[float | None]]
"""Abscissas and ordinates, None where there is none."""


def make_panels(columns: int, rows: int = 1, height: float = 3.4):
    """An empty figure and its panels [rows][columns]."""
    figure = Figure(figsize=(min(9, 4.2 * columns), height * rows))
    figure.set_layout_engine("constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def lines(panel: Axes, series: Mapping[str, Points], **style: Any) -> None:
    """One line for each entry, its key the label."""
    for (label, (x, y)), colour in zip(
        series.items(), itertools.cycle(COLOURS), strict=False
    ):
        drawn = [float("nan") if value is None else value for value in y]
        panel.plot(x, drawn, **{"color": colour, "label": label, "lw": 1.2} | style)


def dots(
    panel: Axes, groups: Mapping[str, Sequence[float]], *, named: bool = True
) -> None:
    """The values of each group as dots in a column, their mean as a bar.

    `named=False`: columns without names, in the order and the colours of `lines`.
    """
    for place, values in enumerate(groups.values()):
        colour = COLOURS[place % len(COLOURS)]
        panel.plot([place] * len(values), values, "o", color=colour, alpha=0.6)
        if values:
            mean = sum(values) / len(values)
            panel.hlines(mean, place - 0.3, place + 0.3, color=colour, lw=2)
    names = list(groups) if named else [""] * len(groups)
    panel.set_xticks(range(len(groups)), names)
    panel.set_xlim(-0.6, len(groups) - 0.4)


def blocks_from(start: int, values: Sequence[float]) -> range:
    """Abscissas of values after `start`, `start` + 1, ... blocks."""
    return range(start, start + len(values))


def finish(figure: Figure, path: pathlib.Path, **legend: Any) -> None:
    """Grids, one legend below all panels, that of the first, and the file."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", **legend)
    _save(figure, path)


def finish_each(figure: Figure, path: pathlib.Path) -> None:
    """Grids, a legend in each panel that has labels, and the file."""
    for panel in figure.axes:
        if panel.get_legend_handles_labels()[1]:
            panel.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: pathlib.Path) -> None:
    for panel in figure.axes:
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
