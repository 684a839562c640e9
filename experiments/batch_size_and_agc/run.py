"""Does adaptive gradient clipping make large batches trainable?

    python -m experiments.batch_size_and_agc.run

Trains what results.json lacks, and draws batches.png.
"""

import functools
import pathlib

from experiments.panels import finish_each, lines, make_panels
from experiments.signal_runs import reproduce
from experiments.training_runs import QUICK, trained

HERE = pathlib.Path(__file__).parent
KINDS = {
    "AGC, λ = 0.1": {"model.name": "nf_wrn_10_1", "optim.agc.clipping": 0.1},
    "no AGC": {"model.name": "nf_wrn_10_1", "optim.agc.clipping": 0.0},
    "BatchNorm": {"model.name": "bn_wrn_10_1", "optim.agc.clipping": 0.0},
}
RATE_OF_64 = 0.2
"""Peak rate of a batch of 64; in proportion for others."""
BATCHES = (16, 128, 1024)
CLIPPINGS = (0.01, 0.03, 0.1, 0.3, 1.0)
CLIPPED_BATCH = 1024
EPOCHS = {"train.epochs": 15.0}


def runs(quick: bool) -> dict:
    common, seeds = (QUICK, 1) if quick else (EPOCHS, 1)
    batches = (16,) if quick else BATCHES
    clippings = CLIPPINGS[2:3] if quick else CLIPPINGS
    clipped_batch = 16 if quick else CLIPPED_BATCH

    def run(batch, changes, seed):
        changes = common | {"data.batch_size": batch} | changes
        return trained("digits", changes, RATE_OF_64 * batch / 64, seed)

    by_batch = {
        f"batch {batch}, {kind}, seed {seed}": functools.partial(
            run, batch, changes, seed
        )
        for batch in reversed(batches)
        for kind, changes in list(KINDS.items())[: 1 if quick else None]
        for seed in range(1, 1 + seeds)
    }
    by_clipping = {
        f"λ {clipping}, seed {seed}": functools.partial(
            run,
            clipped_batch,
            {"model.name": "nf_wrn_10_1", "optim.agc.clipping": clipping},
            seed,
        )
        for clipping in clippings
        for seed in range(1, 1 + seeds)
    }
    return by_batch | by_clipping


def mean_of(results: dict, prefix: str, key: str, factor: float = 100) -> float | None:
    """Over the seeds of runs whose names begin so; diverged ones have accuracy 0."""
    found = [
        result[key] or 0.0
        for name, result in results.items()
        if name.startswith(prefix) and key in result
    ]
    return factor * sum(found) / len(found) if found else None


def draw(results: dict, path: pathlib.Path) -> None:
    figure, grid = make_panels(2)
    by_batch, by_clipping = grid[0]
    accuracies = {
        kind: (
            BATCHES,
            [
                mean_of(results, f"batch {batch}, {kind}, ", "test_accuracy")
                for batch in BATCHES
            ],
        )
        for kind in KINDS
    }
    lines(by_batch, accuracies, marker="o", ms=4)
    by_batch.set(xlabel="images in a batch", ylabel="test accuracy, %", xscale="log")
    by_batch.set_xticks(BATCHES, map(str, BATCHES))
    of_clipping = {
        label: (
            CLIPPINGS,
            [mean_of(results, f"λ {clipping}, ", key) for clipping in CLIPPINGS],
        )
        for label, key in (
            ("accuracy", "test_accuracy"),
            ("units clipped", "clip_fraction"),
        )
    }
    lines(by_clipping, of_clipping, marker="o", ms=4)
    by_clipping.set(
        title=f"batches of {CLIPPED_BATCH}",
        xlabel="λ",
        ylabel="%",
        xscale="log",
        ylim=(0, 100),
    )
    by_clipping.set_xticks(CLIPPINGS, map(str, CLIPPINGS))
    for panel in grid[0]:
        panel.minorticks_off()
    finish_each(figure, path)


def main(argv: list[str] | None = None) -> None:
    reproduce(HERE, __doc__, runs, draw, "batches.png", argv=argv)


if __name__ == "__main__":
    main()
