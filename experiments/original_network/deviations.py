"""Cost of each deviation of the original CIFAR network.

    python -m experiments.original_network.deviations

Gives the network as it should be one deviation of the original at a time, and all of
them; measures and trains what deviations.json lacks, and draws deviations.png.
"""

import functools
import pathlib

from experiments.panels import BLACK, blocks_from, dots, finish, lines, make_panels
from experiments.signal_runs import measured, noise, reproduce
from experiments.training_runs import trainability
from nfnet_jax.analysis import predicted_variance

HERE = pathlib.Path(__file__).parent
DEVIATIONS = {
    "β = variance": {"model.beta": "var"},
    "γ in kernels": {"model.gamma_in_kernel": True},
    "raw shortcut": {"model.raw_shortcut": True},
    "no AGC, no skip gain": {"optim.agc.clipping": 0.0, "model.skip_gain": False},
}
NETWORKS = {
    "as it should be": {},
    **DEVIATIONS,
    "the original": functools.reduce(dict.__or__, DEVIATIONS.values()),
}
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
TRAINED = {
    "model.name": "nf_bottleneck_5_16",
    "optim.nesterov": False,
    "optim.weight_decay": 2e-4,
    "train.epochs": 4.0,
}
"""Settings of configs/cifar10_original.py, on digits."""


def signal(changes: dict, quick: bool) -> dict:
    """At initialization, branches open."""
    name, images = (
        ("nf_bottleneck_1_2", noise(2, 16))
        if quick
        else ("nf_bottleneck_5_16", noise(32, 32))
    )
    options = {
        key.removeprefix("model."): value
        for key, value in changes.items()
        if key.startswith("model.")
    }
    return measured(name, images, **options)


def runs(quick: bool) -> dict:
    signals = {
        f"signal, {name}": functools.partial(signal, NETWORKS[name], quick)
        for name in list(NETWORKS)[-2 if quick else 0 :]
    }
    trainings = {
        f"training, {name}": functools.partial(
            trainability, "digits", TRAINED | changes, RATES, 20, seeds=1
        )
        for name, changes in NETWORKS.items()
    }
    return signals if quick else signals | trainings


def draw(results: dict, path: pathlib.Path) -> None:
    """The signals and, where there are any, the trainings."""
    names = [name for name in NETWORKS if f"signal, {name}" in results]
    trained = {
        name: results[f"training, {name}"]
        for name in names
        if f"training, {name}" in results
    }
    figure, (panels,) = make_panels(3 if trained else 1, height=4)
    variance = panels[0]
    curves = {name: results[f"signal, {name}"]["avg_var"] for name in names}
    lines(variance, {name: (blocks_from(0, v), v) for name, v in curves.items()})
    predicted = predicted_variance((5, 5, 5), 0.2)
    variance.plot(blocks_from(1, predicted), predicted, label="predicted", **BLACK)
    variance.set(xlabel="blocks passed", ylabel="average channel variance")
    variance.set_yscale("log")
    if trained:
        _draw_trained(*panels[1:], trained)
    finish(figure, path, ncols=3 if trained else 2)


def _draw_trained(stable, accuracy, trained: dict[str, dict]) -> None:
    rates = {name: [run["rate"]] for name, run in trained.items()}
    dots(stable, {k: [r for r in rate if r] for k, rate in rates.items()}, named=False)
    stable.set(ylabel="highest stable learning rate", ylim=(0.005, 2), yscale="log")
    accuracies = {
        name: [100 * value for value in run["test_accuracies"]]
        for name, run in trained.items()
    }
    dots(accuracy, accuracies, named=False)
    accuracy.set(ylabel="test accuracy, %", ylim=(0, 100))


def main(argv: list[str] | None = None) -> None:
    reproduce(HERE, __doc__, runs, draw, "deviations.png", "deviations.json", argv=argv)


if __name__ == "__main__":
    main()
