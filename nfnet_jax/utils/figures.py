"""Style of every figure of the project, and SVG that follows the colours of a page.

matplotlib is imported where a figure begins.
"""

import io
import os
import re
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.units import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PALETTE = {
    "page": ("#f6f7f9", "#0f1216"),
    "card": ("#ffffff", "#181c22"),
    "text": ("#1b1f24", "#e6eaef"),
    "muted": ("#59636e", "#9aa5b1"),
    "grid": ("#d9dee4", "#323a44"),
    "c0": ("#0072b2", "#56b4e9"),
    "c1": ("#d55e00", "#ff8b3d"),
    "c2": ("#00805f", "#2ec79d"),
    "c3": ("#b3528f", "#e39ac6"),
    "c4": ("#946500", "#f0c23c"),
    "c5": ("#5a5fd0", "#a3a7ff"),
}
LIGHT = {name: light for name, (light, _) in _PALETTE.items()}
"""Okabe and Ito's colours for colour-blind readers, darkened where faint on white."""
DARK = {name: dark for name, (_, dark) in _PALETTE.items()}
"""The same hues, light enough for a dark page."""
COLOURS = tuple(LIGHT[f"c{i}"] for i in range(6))
"""Colours of lines, in order."""
INK, MUTED, GRID = LIGHT["text"], LIGHT["muted"], LIGHT["grid"]
TEXT_SIZE = 9.5
"""Points."""
_LOG_FROM = 12.0
"""Ratio of the largest to the least positive value that makes an axis logarithmic."""
_DECADES = 6


def subplots(
    columns: int = 1, rows: int = 1, size: tuple[float, float] = (4.6, 2.7)
) -> tuple["Figure", np.ndarray]:
    """An empty figure of `size` inches, and its panels [rows, columns] in the style.

    Lines of a panel take `COLOURS` in order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=72, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_prop_cycle(color=COLOURS)
        panel.grid(color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[:].set_visible(False)
        panel.tick_params(
            which="both", length=0, labelcolor=MUTED, labelsize=TEXT_SIZE, pad=4
        )
        for text in (panel.title, panel.xaxis.label, panel.yaxis.label):
            text.set(color=MUTED, fontsize=TEXT_SIZE)
    return figure, panels


def name_axes(panel: "Axes", x: str, y: str, counts: bool = False) -> None:
    """Names both axes with their units, the vertical one in a line above the panel.

    `counts`: only whole numbers of x are labelled.
    """
    from matplotlib.ticker import MaxNLocator

    panel.set_xlabel(x, loc="right")
    panel.set_title(y, loc="left", color=MUTED, fontsize=TEXT_SIZE)
    if counts:
        panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def fit_values(
    panel: "Axes", values: np.ndarray | None = None, may_be_log: bool = True
) -> None:
    """Scales the vertical axis to `values` (those of all lines), with some room.

    Logarithmic where positive values differ much, from 0 where that is near.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    if values is None:
        values = np.concatenate([np.ravel(line.get_ydata()) for line in panel.lines])
    values = values[np.isfinite(values)].astype(float)
    if not values.size:
        return
    low, high = values.min(), values.max()
    if may_be_log and low >= 0 and high > 0:
        least = max(values[values > 0].min(), high * 10.0**-_DECADES)
        if high > _LOG_FROM * least:
            panel.set_yscale("log", nonpositive="clip")
            panel.set_ylim(least / 1.2, high * 1.2)
            marks = (1, 2, 5) if high < 1e3 * least else (1,)
            panel.yaxis.set_major_locator(LogLocator(subs=marks, numticks=7))
            panel.yaxis.set_major_formatter(lambda value, _: number(value))
            panel.yaxis.set_minor_formatter(NullFormatter())
            return
    if 0 <= low < 0.6 * high:
        low = 0.0
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    panel.set_ylim(low - room if low else low, high + room)


def label_lines(panel: "Axes") -> None:
    """Writes the name of each line of `panel` at its end, once the axes are scaled."""
    from scipy.optimize import isotonic_regression

    to_axes = panel.transScale + panel.transLimits
    lines, ends = [], []
    for line in panel.lines:
        points = np.asarray(line.get_xydata(), float)
        points = points[np.isfinite(points).all(1)]
        if len(points) and not str(line.get_label()).startswith("_"):
            lines.append(line)
            ends.append(to_axes.transform(points[-1])[1])
    if not lines:
        return
    gap = 1.25 * TEXT_SIZE / panel.bbox.height
    # The least moves that leave `gap` between neighbours.
    order, rows = np.argsort(ends), np.arange(len(ends))
    free = isotonic_regression(np.asarray(ends)[order] - gap * rows).x
    places = np.clip(free, 0, max(0.0, 1 - gap * rows[-1])) + gap * rows
    for index, place in zip(order, places, strict=True):
        line = lines[index]
        panel.annotate(
            str(line.get_label()),
            (1, place),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=line.get_color(),
            fontsize=TEXT_SIZE,
            parse_math=False,
            annotation_clip=False,
        )


def legend_below(
    figure: "Figure", columns: int = 4, panels: Iterable["Axes"] | None = None
) -> None:
    """Adds one legend below all panels, of the names in `panels` (all of them)."""
    handles: dict[str, Any] = {}
    for panel in figure.axes if panels is None else panels:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if handles:
        legend = figure.legend(
            handles.values(),
            handles,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=TEXT_SIZE,
            labelcolor=INK,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def save(figure: "Figure", path: str | os.PathLike[str], dpi: int = 120) -> None:
    """Writes PNG, SVG or PDF by the extension of `path`: same figure, same bytes.

    Raises:
      UserError: another extension, or a path that cannot be written.
    """
    extension = os.path.splitext(path)[1].removeprefix(".").lower()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": None}
    if extension not in dates:
        raise UserError(
            f"{os.fspath(path)!r}: expected a name that ends in .png, .svg or .pdf"
        )
    try:
        _save(figure, path, extension, dates[extension], dpi=dpi)
    except OSError as error:
        raise UserError(f"cannot write {os.fspath(path)}: {error.strerror}") from error


def inline_svg(figure: "Figure", prefix: str) -> str:
    """The figure as what stands inside an `<svg>` element of a page.

    The `viewBox` is in points. Texts stay texts, in the font of the page. The colours
    of `LIGHT` become the page's variables `var(--c0)`. `prefix` makes ids unique.
    """
    buffer = io.StringIO()
    _save(figure, buffer, "svg", {"Date": None}, transparent=True)
    # What precedes the first group is for files: metadata, a rule for all elements.
    text = buffer.getvalue()
    text = text[text.index('<g id="figure_1">') : text.rindex("</svg>")]
    text = re.sub(r' transform="rotate\(-0 [^"]*"|font-family: [^;"]*(; )?', "", text)
    text = re.sub(r'( id="|url\(#| xlink:href="#)', rf"\1{prefix}-", text)
    text = text.replace(" xlink:href=", " href=")
    variables = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
    return re.sub("#[0-9a-f]{6}", lambda m: variables.get(m[0], m[0]), text)


def _save(figure: "Figure", target, extension: str, metadata, **options: Any) -> None:
    import matplotlib

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "nfnet_jax"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The reader of an SVG has fonts for the letters that are missing here.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(target, format=extension, metadata=metadata, **options)
