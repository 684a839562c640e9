"""Cost of average-pooled shortcuts on real images, and its prediction.

    python -m experiments.pooled_shortcuts.run --data_dir DATA_DIR

Measures and trains what results.json lacks, and draws variance.png. DATA_DIR holds
CIFAR-10 as TFDS prepares it; the photographs come with scikit-learn.
"""

import functools
import pathlib

import jax
import numpy as np
from sklearn.datasets import load_sample_images

from experiments.panels import blocks_from, dots, finish, lines, make_panels
from experiments.signal_runs import arguments, measured, noise, resume
from experiments.training_runs import QUICK, trained
from nfnet_jax.cli import prepare_jax
from nfnet_jax.data.load import load_dataset

HERE = pathlib.Path(__file__).parent
NETWORKS = ("nf_regnet_b0", "nfnet_f0")
PRESERVING = 2.0
"""Factor of the averages of 2x2 pixels that keeps the variance of white noise."""
SHORTCUTS = {
    "strided": {},
    "pooled": {"model.pooled": True},
    "pooled, kept": {"model.pooled": True, "model.pool_gain": PRESERVING},
}
TRAINED = {"model.name": "nf_wrn_16_1", "train.epochs": 10.0}
RATES = (0.1, 0.4)


def cifar(data_dir: str | None, batch: int, size: int) -> jax.Array:
    """Test images, enlarged (bicubic) to `size` and normalized channel by channel."""
    dataset = load_dataset("tfds:cifar10", data_dir=data_dir)
    images = np.asarray(dataset.test.images[:batch], np.float32)
    shape = (batch, size, size, 3)
    return _normalized(jax.image.resize(images, shape, "bicubic"))


def photographs(batch: int, size: int) -> jax.Array:
    """Crops at original resolution of the two photographs of scikit-learn."""
    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    crops = []
    for i in range(batch):
        photo = photos[i % len(photos)]
        top, left = (rng.integers(side - size) for side in photo.shape[:2])
        crops.append(photo[top : top + size, left : left + size])
    return _normalized(np.asarray(crops, np.float32))


def _normalized(images) -> jax.Array:
    images = images - images.mean((0, 1, 2))
    return jax.numpy.asarray(images / images.std((0, 1, 2)))


def runs(quick: bool, data_dir: str | None) -> dict:
    batch, size = (2, 32) if quick else (4, 192)
    thin = {"depths": (1, 1, 1, 1)} if quick else {}
    sources = {
        "white noise": functools.partial(noise, batch, size),
        "CIFAR-10": functools.partial(cifar, data_dir, batch, size),
        "photographs": functools.partial(photographs, batch, size),
    }
    if quick:
        sources = {name: sources[name] for name in ("white noise",)}
    networks = NETWORKS[:1] if quick else NETWORKS

    def run(network, source, pool_gain):
        return measured(network, sources[source](), pool_gain=pool_gain, **thin)

    return {
        f"{network}, {source}{label}": functools.partial(run, network, source, gain)
        for network in networks
        for label, gain in (("", 1.0), (", kept", PRESERVING))
        for source in sources
    }


def training_runs(quick: bool) -> dict:
    """Runs of three shortcuts at two rates."""
    common, seeds = (QUICK, 1) if quick else (TRAINED, 2)
    shortcuts = list(SHORTCUTS)[:1] if quick else SHORTCUTS
    return {
        f"training, {name}, rate {rate}, seed {seed}": functools.partial(
            trained, "digits", common | SHORTCUTS[name], rate, seed
        )
        for name in shortcuts
        for rate in RATES[: 1 if quick else None]
        for seed in range(1, 1 + seeds)
    }


def draw(results: dict[str, dict], path: pathlib.Path) -> None:
    networks = [n for n in NETWORKS if any(name.startswith(n) for name in results)]
    figure, (panels,) = make_panels(len(networks) + 1)
    for network, panel in zip(networks, panels, strict=False):
        found = {
            name.removeprefix(f"{network}, "): values
            for name, values in results.items()
            if name.startswith(network)
        }
        variances = {name: values["avg_var"] for name, values in found.items()}
        series = {name: (blocks_from(0, v), v) for name, v in variances.items()}
        lines(panel, series, marker="o", ms=3)
        for values in found.values():
            predicted = values["predicted_var"]
            panel.plot(blocks_from(1, predicted), predicted, "kx", ms=4, zorder=5)
        panel.set(
            title=network,
            xlabel="blocks passed",
            ylabel="average channel variance",
            yscale="log",
        )
    panels[0].plot([], [], "kx", ms=4, label="predicted from correlation")
    accuracies = {
        name.replace(", ", ",\n"): [
            100 * (result["test_accuracy"] or 0.0)
            for run, result in results.items()
            if run.startswith(f"training, {name}, rate {RATES[-1]}, ")
        ]
        for name in SHORTCUTS
    }
    dots(panels[-1], accuracies)
    panels[-1].set(title=f"digits, rate {RATES[-1]}", ylabel="test accuracy, %")
    finish(figure, path, ncols=3)


def main(argv: list[str] | None = None) -> None:
    flags = arguments(HERE, __doc__, "--data_dir").parse_args(argv)
    prepare_jax()
    wanted = training_runs(flags.quick) | runs(flags.quick, flags.data_dir)
    results = resume(flags.output / "results.json", wanted)
    draw(results, flags.output / "variance.png")


if __name__ == "__main__":
    main()
