"""The signal propagation plot, and the gains of activations, as PNG, SVG or PDF.

The plot is that of Brock, De, Smith, "Characterizing signal propagation to close the
performance gap in unnormalized ResNets", arXiv 2101.08692, figures 1 and 2.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nfnet_jax.analysis.table import Analysis
from nfnet_jax.layers.activations import Activation, activation_variance
from nfnet_jax.utils import figures

NAMES = (
    "average squared channel mean",
    "average channel variance",
    "branch variance, before skip gain and α",
    "gradient norm / weight norm",
)
CURVES = ("relu", "gelu", "silu", "tanh", "selu", "softplus")
"""Activations whose variances are drawn."""


def plot(analyses: Sequence[Analysis], path: str, title: str = "") -> None:
    """Writes average squared channel mean, average channel variance, branch variance,
    and gradient / weight norms where measured, by depth; predictions are dashed.

    Raises:
      UserError: `path` has another extension or cannot be written.
    """
    with_gradients = any(analysis.gradients for analysis in analyses)
    layout = (2, 2, (8.4, 6.6)) if with_gradients else (3, 1, (10, 3.6))
    figure, panels = figures.subplots(*layout)
    panels = panels.ravel()
    for i, analysis in enumerate(analyses):
        _draw(panels, analysis, figures.COLOURS[i % len(figures.COLOURS)])
    for panel, name in zip(panels, NAMES, strict=False):
        gradients = name == NAMES[3]
        along = "layer, in the order of calls" if gradients else "blocks passed"
        figures.name_axes(panel, along, name, counts=True)
        figures.fit_values(panel)
    if title:
        figure.suptitle(title, color=figures.INK)
    figures.legend_below(figure)
    figures.save(figure, path)


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
        style = {"color": figures.INK, "lw": 0.9, "ls": "--", "label": "predicted"}
        for panel, name in ((panels[1], "output_var"), (panels[2], "branch_var")):
            values = [getattr(predicted, name) for predicted in analysis.predictions]
            panel.plot(after[1:], values, zorder=5, **style)
    if analysis.gradients:
        ratios = [gradient.ratio for gradient in analysis.gradients]
        panels[3].plot(np.arange(1, len(ratios) + 1), ratios, ".", ms=4, color=colour)


def plot_activations(activations: dict[str, Activation], path: str) -> None:
    """Writes what activations do to the variance of their input, with and without γ.

    `activations` are functions of arrays of any shape, by name. Left: γ of each; right:
    Var[γ g(x)] / v for x ~ N(0, v) against v. ReLU keeps any variance; the others only
    v = 1.

    Raises:
      UserError: `path` has another extension or cannot be written.
    """
    figure, ((bars, curves),) = figures.subplots(2, 1, (10, 3.8))
    gains = {name: activation_variance(fn) ** -0.5 for name, fn in activations.items()}
    names = sorted(gains, key=gains.__getitem__)
    bars.barh(names, [gains[name] for name in names], color=figures.COLOURS[0])
    for i, name in enumerate(names):
        bars.annotate(f" {gains[name]:.4f}", (gains[name], i), va="center", fontsize=7)
    figures.name_axes(bars, "", "γ = 1 / standard deviation for unit normal input")
    bars.grid(False)
    bars.margins(x=0.2, y=0.01)
    variances = np.logspace(-2, 2, 33)
    for name in (name for name in CURVES if name in activations):
        after = [
            gains[name] ** 2 * activation_variance(activations[name], float(v)) / v
            for v in variances
        ]
        curves.plot(variances, after, label=name)
    curves.set(xscale="log", ylim=(0, 2.6))
    figures.name_axes(curves, "variance of x", "variance of γ g(x) / variance of x")
    figures.label_lines(curves)
    figures.save(figure, path)
