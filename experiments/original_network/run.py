"""Does the original network train at rates where the original's loss was NaN?

    python experiments/original_network/run.py DATA_DIR OUTPUT_DIR

Trains configs/cifar10_original.py for 300 steps at constant rates of 0.01, 0.1
and 0.5 without warm-up, measures the signal at initialization, writes results.json.
"""

import json
import pathlib
import sys

import jax

from nfnet_jax import create_model
from nfnet_jax.analysis import measure, open_branches, predicted_variance
from nfnet_jax.config import load
from nfnet_jax.training.loop import train

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "cifar10_original.py"
RATES = (0.01, 0.1, 0.5)
STEPS = 300
DEPTHS, ALPHA = (5, 5, 5), 0.2


def stability(rate: float, data_dir: str, output: pathlib.Path) -> dict[str, float]:
    """Losses of a run at a constant rate, averaged over intervals of ten steps."""
    config = load(
        CONFIG,
        {
            "data.dir": data_dir,
            "optim.learning_rate": rate,
            "optim.schedule.name": "constant",
            "optim.schedule.warmup_epochs": 0,
            "train.steps": STEPS,
            "log.every_steps": 10,
        },
    )
    workdir = output / f"rate_{rate}"
    result = train(config, str(workdir))
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    losses = [
        row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row
    ]
    return {
        "learning_rate": rate,
        "first_loss": losses[0],
        "largest_loss": max(losses),
        "last_loss": losses[-1],
        "test_accuracy": result["test_accuracy"],
    }


def variance() -> dict[str, list[float]]:
    """Measured and predicted variance after every block, Gaussian 32x32 images."""
    model = create_model("nf_bottleneck_5_16", 10)
    images = jax.random.normal(jax.random.key(1), (512, 32, 32, 3))
    params = jax.jit(model.init)(jax.random.key(0), images[:1])["params"]
    signal = measure(model, {"params": open_branches(params)}, images)
    predicted = predicted_variance(DEPTHS, ALPHA)
    return {
        "measured": [round(float(v), 3) for v in signal.avg_var[1:]],
        "predicted": [round(float(v), 3) for v in predicted],
    }


def main(data_dir: str, output_dir: str) -> None:
    output = pathlib.Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    results = {
        "variance": variance(),
        "stability": [stability(rate, data_dir, output) for rate in RATES],
    }
    text = json.dumps(results, indent=2)
    (output / "results.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
