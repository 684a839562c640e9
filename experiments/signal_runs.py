"""Common parts of the experiments on signal propagation: measuring, and resuming."""

import argparse
import json
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from nfnet_jax import create_model
from nfnet_jax.analysis import measure, predict_network
from nfnet_jax.cli import prepare_jax


def noise(batch: int, size: int) -> jax.Array:
    """White Gaussian images [batch, size, size, 3] of variance 1."""
    return jax.random.normal(jax.random.key(1), (batch, size, size, 3))


def measured(name: str, images: jax.Array, **overrides) -> dict:
    """The signal in a network at initialization with open branches, as plain lists.

    BatchNorm takes the statistics of the images, as in training.
    """
    model = create_model(name, 10, **overrides)
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), images[:1]))
    train = "batch_stats" in variables
    signal = measure(model, variables, images, train=train)
    predictions = predict_network(model, signal)
    pooled = [block.pooling for block in signal.blocks if block.pooling]
    return {
        "avg_sq_mean": _plain(signal.avg_sq_mean),
        "avg_var": _plain(signal.avg_var),
        "branch_var": _plain(signal.res_avg_var),
        "predicted_var": predictions and _plain([p.output_var for p in predictions]),
        "predicted_pooled_share": _plain([pooling.predicted for pooling in pooled]),
        "measured_pooled_share": _plain([pooling.measured for pooling in pooled]),
    }


def drawn(shapes):
    """Variables of these shapes: kernels normal with variance 1 / fan-in, gains, skip
    gains and scales 1, the rest 0. As `model.init` draws them, without compiling that.
    """
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            fan_in = np.prod(leaf.shape[-4:-1])
            return rng.normal(0, fan_in**-0.5, leaf.shape).astype("float32")
        ones = path[-1].key in ("gain", "skip_gain", "scale", "var")
        return np.full(leaf.shape, float(ones), "float32")

    kept = {name: tree for name, tree in shapes.items() if name != "signal"}
    return jax.tree_util.tree_map_with_path(draw, kept)


def resume(path: pathlib.Path, runs: dict[str, Callable[[], dict]]) -> dict[str, dict]:
    """The results in the JSON file `path`, after all `runs` that it lacks."""
    results = json.loads(path.read_text()) if path.exists() else {}
    for name, run in runs.items():
        if name not in results:
            print(name, flush=True)
            results[name] = run()
            part = path.with_suffix(".part")
            part.write_text(json.dumps(results, indent=1) + "\n")
            part.replace(path)
    return results


def arguments(here: pathlib.Path, description: str, *more: str):
    """`--quick`, `--output` (default: the experiment's folder) and text flags."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny: does it run?")
    parser.add_argument("--output", type=pathlib.Path, default=here)
    for flag in more:
        parser.add_argument(flag)
    return parser


def _plain(values) -> list[float]:
    return [float(f"{value:.4g}") for value in np.asarray(values, float)]


def reproduce(
    here: pathlib.Path,
    description: str,
    runs: Callable[[bool], dict[str, Callable[[], dict]]],
    draw: Callable[[dict[str, dict], pathlib.Path], None],
    picture: str,
    results: str = "results.json",
    argv: Sequence[str] | None = None,
) -> None:
    """A whole experiment: does what is missing of `runs(quick)`, and draws all."""
    flags = arguments(here, description).parse_args(argv)
    prepare_jax()
    draw(resume(flags.output / results, runs(flags.quick)), flags.output / picture)
