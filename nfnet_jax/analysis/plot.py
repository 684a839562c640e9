"""The signal propagation plot [SP, figures 1 and 2], as PNG, SVG or PDF.

matplotlib is imported where it is used.
"""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nfnet_jax.analysis.table import Analysis
from nfnet_jax.layers.activations import Activation, activation_variance
from nfnet_jax.utils.errors import UserError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart by colour-blind readers too."""


NAMES = (
    "average squared channel mean",
    "average channel variance",
    "branch variance, before skip gain and α",
    "gradient norm / weight norm",
)


def plot(analyses: Sequence[Analysis], path: str, title: str = "") -> None:
    """Average squared channel mean, average channel variance, branch variance, and
    gradient / weight norms where measured, by depth; predictions as black lines.

    Raises:
      UserError: matplotlib is not installed, or it cannot write such a file.
    """
    with_gradients = any(analysis.gradients for analysis in analyses)
    figure, panels = _figure(3 + with_gradients)
    for i, analysis in enumerate(analyses):
        _draw(panels, analysis, COLOURS[i % len(COLOURS)])
    for panel, name in zip(panels, NAMES, strict=False):
        panel.set(ylabel=name, xlabel="blocks passed")
        panel.grid(alpha=0.3)
        _scale(panel)
    if with_gradients:
        panels[3].set_xlabel("layer, in the order of calls")
    figure.suptitle(title)
    _legend(figure, panels)
    _save(figure, path)


def _draw(panels, analysis: Analysis, colour: str) -> None:
    signal = analysis.signal
    after = np.arange(len(signal.blocks) + 1)
    style: dict[str, Any] = {"color": colour, "label": analysis.name}
    # Markers while they can be told apart.
    style |= {"marker": "o", "ms": 3} if len(after) <= 40 else {"lw": 1}
    panels[0].plot(after, signal.avg_sq_mean, **style)
    panels[1].plot(after, signal.avg_var, **style)
    if not np.isnan(signal.res_avg_var).all():
        panels[2].plot(after[1:], signal.res_avg_var, **style)
    if analysis.predictions:
        style = {"color": "black", "lw": 0.8, "ls": "--", "label": "predicted"}
        for panel, name in ((panels[1], "output_var"), (panels[2], "branch_var")):
            values = [getattr(predicted, name) for predicted in analysis.predictions]
            panel.plot(after[1:], values, zorder=5, **style)
    if analysis.gradients:
        ratios = [gradient.ratio for gradient in analysis.gradients]
        panels[3].plot(np.arange(1, len(ratios) + 1), ratios, ".", ms=4, color=colour)


def _scale(panel) -> None:
    """Linear from 0, or logarithmic where values differ by more than a factor of 10."""
    values = np.concatenate([line.get_ydata() for line in panel.lines] or [np.ones(1)])
    positive = values[values > 1e-5]
    if positive.size and positive.max() > 10 * positive.min():
        panel.set_yscale("log")
        panel.set_ylim(bottom=max(positive.min() / 2, panel.get_ylim()[0]))
    else:
        panel.set_ylim(0, 1.15 * max(values.max(), 1e-5))


def plot_activations(activations: dict[str, Activation], path: str) -> None:
    """What each activation does to the variance of its input, with and without γ.

    `activations` are functions of arrays of any shape, by name.
    Left: γ of each; right: Var[γ g(x)] / v for x ~ N(0, v) against v. ReLU keeps any
    variance; the others only v = 1.

    Raises:
      UserError: matplotlib is not installed, or it cannot write such a file.
    """
    figure, (bars, curves) = _figure(2)
    gains = {name: activation_variance(fn) ** -0.5 for name, fn in activations.items()}
    names = sorted(gains, key=gains.__getitem__)
    bars.barh(names, [gains[name] for name in names], color=COLOURS[0])
    for i, name in enumerate(names):
        bars.annotate(f" {gains[name]:.4f}", (gains[name], i), va="center", fontsize=7)
    bars.set(xlabel="γ = 1 / std of the output for unit normal input")
    bars.margins(x=0.2)
    variances = np.logspace(-2, 2, 33)
    curves.axhline(1, color="black", ls="--", lw=1, label="unchanged")
    shown = [name for name in CURVES if name in activations]
    for name, colour in zip(shown, COLOURS, strict=False):
        after = [
            gains[name] ** 2 * activation_variance(activations[name], float(v)) / v
            for v in variances
        ]
        curves.plot(variances, after, color=colour, label=name)
    curves.set(
        xlabel="variance of x",
        ylabel="variance of γ g(x) / variance of x",
        xscale="log",
        ylim=(0, 2.6),
    )
    curves.grid(alpha=0.3)
    curves.legend()
    _save(figure, path)


CURVES = ("relu", "gelu", "silu", "tanh", "selu", "softplus")


def check_matplotlib() -> None:
    """Raises UserError where figures cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "matplotlib is missing, expected for figures: pip install -e '.[plot]'"
        )


def _figure(panels: int):
    check_matplotlib()
    from matplotlib.figure import Figure

    rows, columns = (2, 2) if panels == 4 else (1, panels)
    size = (10, 3.6) if rows == 1 else (8.4, 6.6)
    figure = Figure(figsize=size, layout="constrained")
    return figure, np.ravel(figure.subplots(rows, columns))


def _legend(figure, panels) -> None:
    """One for all panels, below them."""
    handles: dict[str, Any] = {}
    for panel in panels:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=4, frameon=False
    )


def _save(figure, path: str) -> None:
    extension = os.path.splitext(path)[1]
    supported = figure.canvas.get_supported_filetypes()
    if extension.removeprefix(".") not in supported:
        raise UserError(f"{path!r}: expected a name that ends in .png, .svg or .pdf")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
