"""Does the signal do in deep residual networks what [SP] says?

    python -m experiments.signal_propagation.run

Measures what results.json lacks, and draws signal.png.
"""

import functools
import pathlib

from matplotlib.figure import Figure

from experiments.signal_runs import arguments, measured, noise, resume

HERE = pathlib.Path(__file__).parent
KINDS = {
    "BatchNorm": ("bn", {}, "#d55e00"),
    "no BatchNorm, no standardization": (
        "nf",
        {"weight_standardization": False},
        "#cc79a7",
    ),
    "scaled weight standardization": ("nf", {}, "#0072b2"),
}
PANELS = {
    "avg_sq_mean": "average squared channel mean",
    "avg_var": "average channel variance",
    "branch_var": "branch variance",
}


DEPTHS = (52, 604)


def runs(quick: bool) -> dict:
    depths, images = ((10,), noise(2, 16)) if quick else (DEPTHS, noise(2, 128))
    return {
        f"{depth} layers, {kind}": functools.partial(
            measured, f"{prefix}_wrn_{depth}_1", images, **overrides
        )
        for depth in depths
        for kind, (prefix, overrides, _) in KINDS.items()
    }


def draw(results: dict[str, dict], path: pathlib.Path) -> None:
    """A row for each depth; black: predicted."""
    depths = list(dict.fromkeys(name.split(", ", 1)[0] for name in results))
    figure = Figure(figsize=(9, 2.6 * len(depths) + 0.5), layout="constrained")
    grid = figure.subplots(len(depths), 3, squeeze=False)
    for layers, row in zip(depths, grid, strict=True):
        for (key, label), panel in zip(PANELS.items(), row, strict=True):
            for kind, (_, _, colour) in KINDS.items():
                values = results[f"{layers}, {kind}"][key]
                start = key == "branch_var"
                blocks = range(start, start + len(values))
                panel.plot(blocks, values, color=colour, label=kind, lw=1.2)
            if key == "avg_var":
                predicted = results[f"{layers}, {kind}"]["predicted_var"]
                style = {"color": "black", "lw": 1, "ls": "--", "label": "predicted"}
                panel.plot(range(1, 1 + len(predicted)), predicted, **style)
            panel.set(ylabel=label, xlabel="blocks passed", yscale="log", title=layers)
            panel.grid(alpha=0.3)
        row[0].set_ylim(bottom=1e-4)
    handles, labels = grid[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    flags = arguments(HERE, __doc__).parse_args(argv)
    results = resume(flags.output / "results.json", runs(flags.quick))
    draw(results, flags.output / "signal.png")


if __name__ == "__main__":
    main()
