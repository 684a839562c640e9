"""Signal in deep residual networks as in Brock, De, Smith, arXiv 2101.08692.

    python -m experiments.signal_propagation.run

Measures what results.json lacks, and draws signal.png.
"""

import functools
import pathlib

from experiments.panels import BLACK, blocks_from, finish, lines, make_panels
from experiments.signal_runs import arguments, measured, noise, resume

HERE = pathlib.Path(__file__).parent
KINDS = {
    "BatchNorm": ("bn", {}),
    "no BatchNorm, no standardization": ("nf", {"weight_standardization": False}),
    "scaled weight standardization": ("nf", {}),
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
        for kind, (prefix, overrides) in KINDS.items()
    }


def draw(results: dict[str, dict], path: pathlib.Path) -> None:
    """A row for each depth; dashed: predicted."""
    depths = list(dict.fromkeys(name.split(", ", 1)[0] for name in results))
    figure, grid = make_panels(3, len(depths), height=2.8)
    for layers, row in zip(depths, grid, strict=True):
        for (key, label), panel in zip(PANELS.items(), row, strict=True):
            curves = {kind: results[f"{layers}, {kind}"][key] for kind in KINDS}
            start = int(key == "branch_var")
            lines(panel, {k: (blocks_from(start, v), v) for k, v in curves.items()})
            if key == "avg_var":
                standardized = results[f"{layers}, {list(KINDS)[-1]}"]
                predicted = standardized["predicted_var"]
                panel.plot(blocks_from(1, predicted), predicted, **BLACK)
            panel.set(ylabel=label, xlabel="blocks passed", yscale="log", title=layers)
        row[0].set_ylim(bottom=1e-4)
    grid[0][0].plot([], [], label="predicted", **BLACK)
    finish(figure, path, ncols=2)


def main(argv: list[str] | None = None) -> None:
    flags = arguments(HERE, __doc__).parse_args(argv)
    results = resume(flags.output / "results.json", runs(flags.quick))
    draw(results, flags.output / "signal.png")


if __name__ == "__main__":
    main()
