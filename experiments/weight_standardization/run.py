"""Worth and cost of weight standardization and its gain.

    python -m experiments.weight_standardization.run

Measures what results.json lacks, and draws accuracy.png.
"""

import functools
import pathlib

from experiments.panels import dots, finish, make_panels
from experiments.signal_runs import reproduce
from experiments.training_runs import QUICK, step_costs, trained

HERE = pathlib.Path(__file__).parent
VARIANTS = {
    "gain": {},
    "no gain": {"optim.freeze": ("/gain$",)},
    "plain": {"model.weight_standardization": False},
}
"""Settings of the kernels; gains start at 1, so that frozen ones are none."""
RATES = (0.1, 0.4)
EPOCHS = {"train.epochs": 15.0}
COSTLY = {"data.image_size": 32, "data.batch_size": 64}
MICROBATCHES = (1, 8)


def costs() -> dict:
    variants = {
        f"{name}, {parts} microbatches": COSTLY
        | VARIANTS[name]
        | {"optim.accumulate": parts}
        for parts in MICROBATCHES
        for name in ("gain", "plain")
    }
    return step_costs("digits", variants, rounds=11)


def runs(quick: bool) -> dict:
    changes, seeds = (QUICK, 2) if quick else (EPOCHS, 4)
    accuracies = {
        f"{name}, rate {rate}, seed {seed}": functools.partial(
            trained, "digits", changes | VARIANTS[name], rate, seed
        )
        for name in list(VARIANTS)[: 1 if quick else None]
        for rate in RATES[: 1 if quick else None]
        for seed in range(1, 1 + seeds)
    }
    return accuracies if quick else accuracies | {"costs": costs}


def draw(results: dict, path: pathlib.Path) -> None:
    figure, grid = make_panels(len(RATES))
    for panel, rate in zip(grid[0], RATES, strict=True):
        groups = {
            name: [
                100 * (result["test_accuracy"] or 0.0)
                for run, result in results.items()
                if run.startswith(f"{name}, rate {rate}, ")
            ]
            for name in VARIANTS
        }
        dots(panel, groups)
        title = f"peak learning rate {rate}, by seed"
        panel.set(title=title, xlabel="kernels", ylabel="test accuracy, %")
    finish(figure, path)


def main(argv: list[str] | None = None) -> None:
    reproduce(HERE, __doc__, runs, draw, "accuracy.png", argv=argv)


if __name__ == "__main__":
    main()
