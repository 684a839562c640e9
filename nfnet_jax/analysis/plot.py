"""The signal propagation plot [SP, figures 1 and 2], as PNG, SVG or PDF.

matplotlib is imported where it is used.
"""

import importlib.util
import os
from collections.abc import Sequence

import numpy as np

from nfnet_jax.analysis.report import Analysis
from nfnet_jax.errors import UserError
from nfnet_jax.layers.activations import Activation, activation_variance

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart by colour-blind readers too."""


def plot(analyses: Sequence[Analysis], path: str, title: str = "") -> None:
    """Average squared channel mean, average channel variance, branch variance, and
    gradient / weight norms where measured, by depth; predictions as black lines.

    Raises:
      UserError: matplotlib is not installed, or it cannot write such a file.
    """
    with_gradients = any(analysis.gradients for analysis in analyses)
    figure, panels = _figure(3 + with_gradients)
    for analysis, colour in zip(analyses, _cycle(len(analyses)), strict=True):
        signal = analysis.signal
        style = {"color": colour, "label": analysis.name}
        after = np.arange(len(signal.blocks) + 1)
        panels[0].plot(after, signal.avg_sq_mean, **style, **_marks(after))
        panels[1].plot(after, signal.avg_var, **style, **_marks(after))
        if not np.isnan(signal.res_avg_var).all():
            panels[2].plot(after[1:], signal.res_avg_var, **style, **_marks(after))
        if analysis.predictions:
            _draw_predictions(panels, analysis)
        if analysis.gradients:
            ratios = [gradient.ratio for gradient in analysis.gradients]
            panels[3].plot(np.arange(1, len(ratios) + 1), ratios, ".", ms=3, **style)
    names = (
        "average squared channel mean",
        "average channel variance",
        "branch variance, before skip gain and α",
        "gradient norm / weight norm",
    )
    for panel, name in zip(panels, names, strict=False):
        panel.set(ylabel=name, xlabel="blocks passed", yscale="log")
        panel.grid(alpha=0.3)
    panels[0].set_yscale("symlog", linthresh=1e-3)
    if with_gradients:
        panels[3].set_xlabel("layer, in the order of calls")
    figure.suptitle(title)
    _legend(figure, panels)
    _save(figure, path)


def plot_activations(activations: dict[str, Activation], path: str) -> None:
    """What each activation does to the variance of its input, with and without γ.

    Left: γ of each; right: Var[γ g(x)] for x ~ N(0, v) against v, which is v itself
    where a network may shrink its signal without harm.

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
    curves.plot(variances, variances, "k--", lw=1, label="unchanged")
    shown = [name for name in CURVES if name in activations]
    for name, colour in zip(shown, COLOURS, strict=False):
        after = [
            gains[name] ** 2 * activation_variance(activations[name], float(v))
            for v in variances
        ]
        curves.plot(variances, after, color=colour, label=name)
    curves.set(
        xlabel="variance of the input",
        ylabel="variance of γ · output",
        xscale="log",
        yscale="log",
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

    figure = Figure(figsize=(4.2 * panels, 3.9), layout="constrained")
    return figure, np.ravel(figure.subplots(1, panels))


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _marks(blocks: np.ndarray) -> dict:
    """Markers while they can be told apart."""
    return {"marker": "o", "ms": 3} if len(blocks) <= 40 else {"lw": 1}


def _draw_predictions(panels, analysis: Analysis) -> None:
    after = np.arange(1, len(analysis.predictions) + 1)
    style = {"color": "black", "lw": 0.8, "ls": "--", "zorder": 5}
    outputs = [prediction.output_var for prediction in analysis.predictions]
    panels[1].plot(after, outputs, **style, label="predicted")
    inputs = [prediction.branch_input_var for prediction in analysis.predictions]
    panels[2].plot(after, inputs, **style, label="predicted")


def _legend(figure, panels) -> None:
    """One for all panels, below them."""
    handles = {}
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
