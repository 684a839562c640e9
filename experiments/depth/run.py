"""Which residual networks train at 16, 100 and 1000 layers?

    python -m experiments.depth.run

Trains what results.json lacks, and draws depth.png.
"""

import functools
import pathlib

from experiments.panels import finish, lines, make_panels
from experiments.signal_runs import reproduce
from experiments.training_runs import QUICK, trainability

HERE = pathlib.Path(__file__).parent
NOTHING = {
    "model.alpha": 1.0,
    "model.beta": "none",
    "model.weight_standardization": False,
    "model.skip_gain": False,
}
KINDS = {
    "normalizer-free": ("nf", {}),
    "BatchNorm": ("bn", {}),
    "SkipInit": ("skipinit", {}),
    "Fixup": ("fixup", {}),
    "none": ("nf", NOTHING),
}
"""Prefix of the networks, and what else is changed. "none": x + branch(γ · relu(x))
with plain kernels of variance 1 / fan-in."""
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
DEPTHS = {
    16: ({"train.epochs": 6.0}, RATES, 20, 1),
    100: ({"train.epochs": 2.0, "data.batch_size": 32}, RATES, 20, 1),
    1000: ({"data.batch_size": 16}, RATES[:4], 12, 0),
}
"""Changes, constant rates and updates at each, seeds of the trainings."""


def runs(quick: bool) -> dict:
    depths = {10: (QUICK, RATES[1:2], 2, 1)} if quick else DEPTHS
    kinds = list(KINDS)[:2] if quick else KINDS

    def run(depth, kind):
        changes, rates, steps, seeds = depths[depth]
        prefix, more = KINDS[kind]
        network = {"model.name": f"{prefix}_wrn_{depth}_1", "optim.agc.clipping": 0.0}
        return trainability("digits", changes | network | more, rates, steps, seeds)

    return {
        f"{depth} layers, {kind}": functools.partial(run, depth, kind)
        for depth in depths
        for kind in kinds
    }


def draw(results: dict, path: pathlib.Path) -> None:
    """Against depth: the highest stable rate, and the mean accuracy."""
    figure, grid = make_panels(2, height=4)
    stable, accuracy = grid[0]
    depths = list(dict.fromkeys(int(name.split()[0]) for name in results))

    def against_depth(value):
        return {
            kind: (
                depths,
                [value(results.get(f"{depth} layers, {kind}", {})) for depth in depths],
            )
            for kind in KINDS
        }

    lines(stable, against_depth(lambda found: found.get("rate")), marker="o", ms=4)
    lines(accuracy, against_depth(_mean_accuracy), marker="o", ms=4)
    stable.set(ylabel="highest stable learning rate", yscale="log")
    accuracy.set(ylabel="test accuracy, %", ylim=(0, 100))
    for panel in grid[0]:
        panel.set(xlabel="layers", xscale="log")
        panel.set_xticks(depths, map(str, depths))
        panel.minorticks_off()
    finish(figure, path, ncols=3)


def _mean_accuracy(found: dict) -> float | None:
    accuracies = found.get("test_accuracies")
    return 100 * sum(accuracies) / len(accuracies) if accuracies else None


def main(argv: list[str] | None = None) -> None:
    reproduce(HERE, __doc__, runs, draw, "depth.png", argv=argv)


if __name__ == "__main__":
    main()
