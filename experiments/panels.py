"""Figures of the experiments: panels of lines and dots in the style of the project."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfnet_jax.utils import figures
from nfnet_jax.utils.figures import COLOURS

BLACK = {"color": figures.INK, "lw": 1, "ls": "--"}
Points = tuple[Sequence[float], Sequence[float | None]]
"""Abscissas and ordinates, None where there is none."""


def make_panels(columns: int, rows: int = 1, height: float = 3.4):
    """An empty figure and its panels [rows][columns]."""
    return figures.subplots(columns, rows, (min(9, 4.2 * columns), height * rows))


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


def finish(figure: Figure, path: pathlib.Path, ncols: int = 4) -> None:
    """Adds the legend of the first panel below all and writes the file."""
    figures.legend_below(figure, ncols, figure.axes[:1])
    figures.save(figure, path)


def finish_each(figure: Figure, path: pathlib.Path) -> None:
    """Adds a legend to each panel that has labels and writes the file."""
    for panel in figure.axes:
        if panel.get_legend_handles_labels()[1]:
            panel.legend(fontsize=8, labelcolor=figures.INK, frameon=False)
    figures.save(figure, path)
