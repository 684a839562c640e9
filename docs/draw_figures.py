"""Draws the pictures of the README, from experiments/signal_propagation.

    python docs/draw_figures.py

signal.png from results.json there, digit.png from scikit-learn.
"""

import argparse
import json
import pathlib

from matplotlib.figure import Figure
from PIL import Image

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS.parent / "experiments" / "signal_propagation" / "results.json"
LAYERS = "604 layers"
CURVES = {
    "no BatchNorm, no standardization": ("#cc79a7", "neither, plain kernels"),
    "BatchNorm": ("#d55e00", "BatchNorm"),
    "scaled weight standardization": ("#0072b2", "normalizer-free, as here"),
}
"""Name in the results: colour, label."""
DIGIT = 7
"""Place in scikit-learn's set of the digit in digit.png, a 7 of the test split."""


def draw_signal(results: dict[str, dict], path: pathlib.Path) -> None:
    """Means and variances of the signal by depth, in a very deep network."""
    figure = Figure(figsize=(9, 3.7), layout="constrained")
    means, variances = figure.subplots(1, 2)
    for name, (colour, label) in CURVES.items():
        curves = results[f"{LAYERS}, {name}"]
        style = {"color": colour, "label": label, "lw": 2}
        means.plot(curves["avg_sq_mean"], **style)
        variances.plot(curves["avg_var"], **style)
    predicted = results[f"{LAYERS}, scaled weight standardization"]["predicted_var"]
    blocks = range(1, 1 + len(predicted))
    variances.plot(blocks, predicted, "k--", lw=1.2, label="its prediction")
    means.set_title("squared mean of the channels")
    variances.set_title("variance of the channels")
    means.set_ylim(bottom=1e-4)
    for panel in (means, variances):
        panel.set(xlabel="residual blocks passed", yscale="log")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    handles, labels = variances.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=200)


def draw_digit(path: pathlib.Path) -> None:
    """A handwritten digit as a grey image of 64x64 pixels."""
    from sklearn.datasets import load_digits

    pixels = (load_digits().images[DIGIT] / 16 * 255).round().astype("uint8")
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, default=DOCS)
    output = parser.parse_args(argv).output
    draw_signal(json.loads(RESULTS.read_text()), output / "signal.png")
    draw_digit(output / "digit.png")


if __name__ == "__main__":
    main()
