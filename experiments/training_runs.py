"""Short runs, stable rates and costs of a step, for the experiments that train."""

import contextlib
import functools
import math
import pathlib
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nfnet_jax.config import load
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.groups import parameter_groups
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.state import TrainState, init_state

Changes = Mapping[str, Any]
"""Config keys and their values."""
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SHORT = {"optim.ema_decay": 0.0}
"""No average, whose start `Trainer` would take for its end."""
QUICK = {"train.steps": 2, "data.batch_size": 16}
APART = 100
"""Runs between the batches of one seed and of the next."""
HIGHEST = 1.01
"""A rate is stable if the loss ends below this multiple of the first."""


def short_config(file: str, changes: Changes) -> ConfigDict:
    """configs/FILE.py with `changes`, and what a baseline exempts otherwise."""
    overrides = SHORT | _exemptions(changes) | dict(changes)
    return load(CONFIGS / f"{file}.py", overrides)


def _exemptions(changes: Changes) -> dict[str, tuple[str, ...]]:
    """From weight decay and AGC: patterns have to match something in the network."""
    if changes.get("model.name", "").startswith(("bn_", "fixup_")):
        return {
            "optim.weight_decay_exclude": ("bias", "scale$"),
            "optim.agc.exclude": ("classifier",),
        }
    if changes.get("model.skip_gain") is False:
        excluded = "bias$", *["gain$"] * changes.get("model.weight_standardization", 1)
        return {
            "optim.weight_decay_exclude": excluded,
            "optim.agc.exclude": ("classifier",),
        }
    return {}


class Trainer:
    """Trains one network from any seed at any rate with one compiled step.

    The steps and the test of `training.loop`, without its files: there the rate and
    the seed are constants of the program, and compiling takes longer than a short run.
    A seed draws the parameters, and says at which epoch the shuffling starts.
    """

    def __init__(self, file: str, changes: Changes):
        self._config = config = short_config(file, changes)
        self._run = run = Experiment(config)
        scheduled = jax.vmap(run.schedule)(jnp.arange(run.timeline.steps))
        self._shares = np.asarray(scheduled / run.timeline.peak_rate).tolist()

        @functools.partial(jax.jit, donate_argnums=1)
        def step(rate, state, fed):
            optimizer = build_optimizer(
                config.optim,
                lambda count: rate,
                parameter_groups(config.optim, state.params),
            )
            return run.make_train_step(optimizer=optimizer)(state, fed)

        self._step = step

    def start(self, seed: int) -> TrainState:
        """Before the first update, with the shuffling of later epochs for each seed."""
        run = self._run
        state = init_state(*run.init_variables(seed), run.optimizer)
        return state.replace(step=state.step + seed * APART * run.timeline.steps)

    def updates(self, rates: Iterable[float], state: TrainState) -> Iterator:
        """The state and the metrics after each update, as long as both are finite."""
        with contextlib.closing(self._run.train_batches.iterate(0)) as feed:
            for rate in rates:
                state, metrics = self._step(rate, state, next(feed))
                metrics = {name: float(value) for name, value in metrics.items()}
                if not math.isfinite(metrics["loss"] + metrics["grad_norm"]):
                    return
                yield state, metrics

    def train(self, rate: float, seed: int) -> dict[str, Any]:
        started = time.perf_counter()
        rates = [rate * share for share in self._shares]
        history = list(self.updates(rates, self.start(seed)))
        found = [metrics for _, metrics in history]
        if len(found) < len(rates):
            return {"test_accuracy": None, "rate": rate, "steps": len(found)}
        scores = self._run.evaluate(history[-1][0])
        last = found[-max(1, len(found) // 10) :]
        return {
            "test_accuracy": scores["accuracy"],
            "rate": rate,
            "steps": len(found),
            "train_loss": statistics.mean(row["loss"] for row in last),
            "clip_fraction": statistics.mean(r.get("clip_fraction", 0) for r in found),
            "seconds": time.perf_counter() - started,
        }

    def highest_stable_rate(self, rates: Sequence[float], steps: int) -> dict[str, Any]:
        highest, losses = None, {}
        for rate in rates:
            found = [m["loss"] for _, m in self.updates([rate] * steps, self.start(0))]
            end = found[-max(1, steps // 4) :] if len(found) == steps else [math.inf]
            losses[f"{rate:g}"] = round(statistics.mean(end), 4)
            if found and losses[f"{rate:g}"] < HIGHEST * found[0]:
                highest = rate
            elif highest is not None:
                break
        return {"rate": highest, "losses": losses}


@functools.lru_cache(maxsize=2)
def _trainer(file: str, changes: tuple) -> Trainer:
    return Trainer(file, dict(changes))


def trained(file: str, changes: Changes, rate: float, seed: int = 0) -> dict[str, Any]:
    """Trains configs/FILE.py with `changes`; accuracies are in [0, 1].

    `rate` is the peak learning rate. `train_loss` is of the last tenth of the run.
    `test_accuracy` is None for a run that diverged, `steps` are those it came to.
    """
    return _trainer(file, tuple(changes.items())).train(rate, seed)


def highest_stable_rate(
    file: str, changes: Changes, rates: Sequence[float], steps: int
) -> dict[str, Any]:
    """The largest of the increasing `rates` at which `steps` updates keep the loss.

    Networks that start closed hardly learn in so few. Constant rates, no warm-up,
    always the same initialization and batches. `rate` is None if none is stable;
    `losses` are the means of each rate's last quarter. The search ends at the first
    rate that fails after one that did not.
    """
    trainer = _trainer(file, tuple(changes.items()))
    return trainer.highest_stable_rate(rates, steps)


def trainability(
    file: str, changes: Changes, rates: Sequence[float], steps: int, seeds: int
) -> dict[str, Any]:
    """`highest_stable_rate`, and the accuracies of runs at half of it, seed by seed."""
    found = highest_stable_rate(file, changes, rates, steps)
    if found["rate"] is None:
        return found | {"test_accuracies": [], "train_losses": []}
    runs = [
        trained(file, changes, found["rate"] / 2, seed) for seed in range(1, 1 + seeds)
    ]
    return found | {
        "test_accuracies": [run["test_accuracy"] or 0.0 for run in runs],
        "train_losses": [run.get("train_loss") for run in runs],
    }


def step_costs(
    file: str, variants: Mapping[str, Changes], rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of a training step, median of `rounds` in which the variants take
    turns, and XLA's own account of its working memory in megabytes."""
    steps = {name: _compiled(file, changes) for name, changes in variants.items()}
    times = {name: [] for name in variants}
    for _ in range(rounds):
        for name, (compiled, state, fed) in steps.items():
            start = time.perf_counter()
            state, _ = jax.block_until_ready(compiled(state, fed))
            times[name].append(1e3 * (time.perf_counter() - start))
            steps[name] = compiled, state, fed
    return {
        name: {
            "milliseconds": statistics.median(times[name]),
            "working_megabytes": steps[name][0].memory_analysis().temp_size_in_bytes
            / 1e6,
        }
        for name in variants
    }


def _compiled(file: str, changes: Changes):
    config = short_config(file, changes)
    run = Experiment(config)
    with contextlib.closing(run.train_batches.iterate(0)) as feed:
        fed = next(feed)
    return run.train_step.lower(run.state, fed).compile(), run.state, fed


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation between runs."""
    return statistics.mean(values), statistics.stdev(values) if values[1:] else 0.0
