"""Accuracy on CIFAR-10 without normalization by training FLOPs.

    python experiments/cifar10_speedrun/run.py DATA_DIR OUTPUT_DIR [BUDGET ...]

Trains configs/cifar10_speedrun.py at each budget (PFLOP, those of the config; all if
none is given), tests with and without mirrored images, updates results.json and
curve.png.
"""

import json
import pathlib
import runpy
import sys

import jax

from nfnet_jax.config import load
from nfnet_jax.data.augment import normalize
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.loop import train
from nfnet_jax.training.trained import load_run
from nfnet_jax.utils import figures

HERE = pathlib.Path(__file__).parent
CONFIG = HERE.parents[1] / "configs" / "cifar10_speedrun.py"
RESULTS = HERE / "results.json"
BUDGETS = runpy.run_path(str(CONFIG))["BUDGETS"]
OTHERS = {
    "airbench94 (BatchNorm, Muon)": (0.29, 94.0),
    "nf_wrn_16_2 (configs/cifar10_cpu.py)": (0.30, 89.6),
    "nf_air_64 with max pooling, no shortcuts": (0.199, 90.3),
}
"""PFLOP and percent."""


def run_budget(budget: str, data_dir: str, output: pathlib.Path) -> dict:
    """Cost and accuracy of a training run at `budget`."""
    workdir = output / f"budget_{budget}"
    config = load(f"{CONFIG}:{budget}", {"data.dir": data_dir})
    result = train(config, str(workdir))
    return {
        "model": config.model.name,
        "pflop": result["train_flops"] / 1e15,
        "steps": result["steps"],
        "test_accuracy": result["test_accuracy"],
        "test_accuracy_ema": result["test_accuracy_ema"],
        "test_accuracy_ema_flip": flip_accuracy(config, str(workdir)),
    }


def flip_accuracy(config, workdir: str, batch_size: int = 500) -> float:
    """Accuracy of the summed logits of every test image and its mirror image."""
    trained, test = load_run(workdir), Experiment(config).dataset.test

    @jax.jit
    def count_correct(images, labels):
        x = normalize(images, *trained.data_spec.moments)
        logits = sum(
            trained.model.apply(trained.variables, v) for v in (x, x[:, :, ::-1])
        )
        return (logits.argmax(-1) == labels).sum()

    starts = range(0, len(test), batch_size)
    parts = [slice(start, start + batch_size) for start in starts]
    return sum(
        int(count_correct(test.images[part], test.labels[part])) for part in parts
    ) / len(test)


def draw(results: dict[str, dict]) -> None:
    """Accuracy against PFLOP, with what others reach."""
    figure, ((panel,),) = figures.subplots(size=(6, 4))
    rows = sorted(results.values(), key=lambda row: row["pflop"])
    pflop = [row["pflop"] for row in rows]
    for key, label, style in (
        ("test_accuracy_ema_flip", "with mirrored test images", "o-"),
        ("test_accuracy_ema", "without", "o--"),
    ):
        shares = [100 * row[key] for row in rows]
        panel.plot(pflop, shares, style, color=figures.COLOURS[0], label=label)
    for (name, (x, y)), marker in zip(OTHERS.items(), "^sv", strict=True):
        panel.plot(x, y, marker, color=figures.INK, label=name)
    panel.set_xscale("log")
    figures.name_axes(panel, "training PFLOP, log scale", "CIFAR-10 test accuracy (%)")
    panel.legend(fontsize=8, labelcolor=figures.INK, frameon=False)
    figures.save(figure, HERE / "curve.png")


def main(data_dir: str, output_dir: str, *budgets: str) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for budget in budgets or BUDGETS:
        results[budget] = run_budget(budget, data_dir, pathlib.Path(output_dir))
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    draw(results)


if __name__ == "__main__":
    main(*sys.argv[1:])
