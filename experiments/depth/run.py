"""Residual networks of 16, 100 and 1000 layers: stable rates and accuracy.

    python -m experiments.depth.run [--data_dir DATA_DIR]

Trains what results.json lacks, and draws depth.png. With DATA_DIR, which holds CIFAR-10
as TFDS prepares it, on a fifth of that too.
"""

import functools
import pathlib

from experiments.panels import finish, lines, make_panels
from experiments.signal_runs import arguments, resume
from experiments.training_runs import QUICK, trainability
from nfnet_jax.cli import prepare_jax

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
    1000: ({"train.epochs": 1.0, "data.batch_size": 16}, RATES[:4], 12, 1),
}
"""Changes, constant rates and updates at each, seeds of the trainings."""
CIFAR = {"train.epochs": 2.0, "data.batch_size": 64, "data.train_split": "train[:20%]"}
CIFAR_DEPTHS = {16: (CIFAR, RATES, 20, 1)}


def runs(quick: bool, data_dir: str | None) -> dict:
    if quick:
        return _runs_of("digits", "", {10: (QUICK, RATES[1:2], 2, 1)}, list(KINDS)[:2])
    found = _runs_of("digits", "", DEPTHS, KINDS)
    if data_dir:
        where = {"data.dir": data_dir}
        found |= _runs_of("cifar10", "CIFAR-10, ", CIFAR_DEPTHS, KINDS, where)
    return found


def _runs_of(file, prefix, depths, kinds, where: dict | None = None) -> dict:
    def run(depth, kind):
        changes, rates, steps, seeds = depths[depth]
        family, more = KINDS[kind]
        network = {"model.name": f"{family}_wrn_{depth}_1", "optim.agc.clipping": 0.0}
        return trainability(
            file, (where or {}) | changes | network | more, rates, steps, seeds
        )

    return {
        f"{prefix}{depth} layers, {kind}": functools.partial(run, depth, kind)
        for depth in depths
        for kind in kinds
    }


def draw(results: dict, path: pathlib.Path) -> None:
    """Digits, against depth: the highest stable rate, and the mean accuracy."""
    figure, grid = make_panels(2, height=4)
    stable, accuracy = grid[0]
    digits = [name for name in results if not name.startswith("CIFAR")]
    depths = list(dict.fromkeys(int(name.split()[0]) for name in digits))

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
    flags = arguments(HERE, __doc__, "--data_dir").parse_args(argv)
    prepare_jax()
    results = resume(flags.output / "results.json", runs(flags.quick, flags.data_dir))
    draw(results, flags.output / "depth.png")


if __name__ == "__main__":
    main()
