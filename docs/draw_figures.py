"""Draws the pictures of the README, from experiments/signal_propagation.

    python docs/draw_figures.py

signal.png from results.json there, digit.png from scikit-learn.
"""

import argparse
import json
import pathlib

from PIL import Image

from nfnet_jax.utils import figures

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS.parent / "experiments" / "signal_propagation" / "results.json"
LAYERS = "604 layers"
CURVES = {
    "no BatchNorm, no standardization": (figures.COLOURS[3], "neither"),
    "BatchNorm": (figures.COLOURS[1], "BatchNorm"),
    "scaled weight standardization": (figures.COLOURS[0], "normalizer-free"),
}
"""Name in the results: colour, label."""
DIGIT = 7
"""Place in scikit-learn's set of the digit in digit.png, a 7 of the test split."""


def draw_signal(results: dict[str, dict], path: pathlib.Path) -> None:
    """Means and variances of the signal by depth, in a very deep network."""
    figure, ((means, variances),) = figures.subplots(2, 1, (9, 3.5))
    for name, (colour, label) in CURVES.items():
        curves = results[f"{LAYERS}, {name}"]
        means.plot(curves["avg_sq_mean"], color=colour, lw=2)
        variances.plot(curves["avg_var"], color=colour, lw=2, label=label)
    predicted = results[f"{LAYERS}, scaled weight standardization"]["predicted_var"]
    blocks = range(1, 1 + len(predicted))
    style = {"color": figures.INK, "lw": 1.2, "ls": "--"}
    variances.plot(blocks, predicted, label="its prediction", **style)
    for panel, name in ((means, "squared mean"), (variances, "variance")):
        figures.name_axes(panel, "residual blocks passed", f"{name} of the channels")
        panel.set_yscale("log")
    means.set_ylim(bottom=1e-4)
    figures.label_lines(variances)
    figures.save(figure, path, dpi=200)


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
