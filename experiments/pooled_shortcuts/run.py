"""What do average-pooled shortcuts cost on real images, and can it be predicted?

    python -m experiments.pooled_shortcuts.run --data_dir DATA_DIR

Measures what results.json lacks, and draws variance.png. DATA_DIR holds CIFAR-10 as
TFDS prepares it; the photographs come with scikit-learn.
"""

import functools
import pathlib

import jax
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_images

from experiments.signal_runs import arguments, measured, noise, resume
from nfnet_jax.data.dataset import load_dataset

HERE = pathlib.Path(__file__).parent
NETWORKS = ("nf_regnet_b0", "nfnet_f0")
COLOURS = {"white noise": "#0072b2", "CIFAR-10": "#d55e00", "photographs": "#009e73"}


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
        del sources["CIFAR-10"]
    networks = NETWORKS[:1] if quick else NETWORKS

    def run(network, source):
        return measured(network, sources[source](), **thin)

    return {
        f"{network}, {source}": functools.partial(run, network, source)
        for network in networks
        for source in sources
    }


def draw(results: dict[str, dict], path: pathlib.Path) -> None:
    networks = [n for n in NETWORKS if any(name.startswith(n) for name in results)]
    figure = Figure(figsize=(4.2 * len(networks), 3.6), layout="constrained")
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for network, panel in zip(networks, panels, strict=True):
        for source, colour in COLOURS.items():
            if values := results.get(f"{network}, {source}"):
                panel.plot(values["avg_var"], "o-", ms=3, color=colour, label=source)
                predicted = values["predicted_var"]
                blocks = range(1, 1 + len(predicted))
                panel.plot(blocks, predicted, "x", color="black", ms=5, zorder=5)
        panel.plot([], [], "x", color="black", label="predicted from correlation")
        panel.set(
            title=network,
            xlabel="blocks passed",
            ylabel="average channel variance",
            yscale="log",
        )
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    flags = arguments(HERE, __doc__, "--data_dir").parse_args(argv)
    results = resume(flags.output / "results.json", runs(flags.quick, flags.data_dir))
    draw(results, flags.output / "variance.png")


if __name__ == "__main__":
    main()
