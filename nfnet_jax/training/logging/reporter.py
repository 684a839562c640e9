"""Training metrics, logged one interval late so that the loop never waits for them."""

import math
from typing import Any

import jax
import numpy as np

from nfnet_jax.optim.tree import layer_names
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.logging.console import Progress
from nfnet_jax.training.logging.writer import MetricWriter
from nfnet_jax.training.step import Metrics
from nfnet_jax.utils.errors import UserError

_MOST_SKIPPED = 100


class Diverged(UserError):
    """Error of an update, number `step`, whose loss or gradient is not finite."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class Reporter:
    """Collects the metrics of every step on the device and writes interval means.

    Fetching a value waits until it is computed. The values of an interval are fetched
    when the next one ends, and by then they are computed.
    """

    def __init__(
        self, experiment: Experiment, writer: MetricWriter, progress: Progress
    ):
        self._experiment = experiment
        self._writer, self._progress = writer, progress
        self._interval: list[tuple[int, Metrics]] = []
        self._previous: list[tuple[int, Metrics]] = []
        self._layers = layer_names(experiment.abstract_variables[0])
        self._ratios: tuple[int, np.ndarray] | None = None
        self._skipped_in_a_row = 0

    def add(self, step: int, metrics: Metrics) -> None:
        """Adds the metrics of update number `step`."""
        self._interval.append((step, metrics))
        self._progress.advance(step)

    def end_interval(self) -> None:
        """Ends an interval and writes the one before. Raises as `flush` does."""
        if self._previous:
            fetched = jax.device_get(self._previous)
            self._progress.stopwatch.behind(fetched[-1][0])
            self._write(fetched)
        self._interval, self._previous = [], self._interval

    def flush(self) -> None:
        """Writes everything added so far, waiting for the device.

        Raises:
          Diverged: a loss or gradient is not finite, and the update was not skipped or
            is the hundredth skipped one in a row.
        """
        intervals = [i for i in (self._previous, self._interval) if i]
        self._interval, self._previous = [], []
        fetched = jax.device_get(intervals)
        if fetched:
            self._progress.stopwatch.lap(fetched[-1][-1][0])
        for interval in fetched:
            self._write(interval)

    def _write(self, fetched: list[tuple[int, Any]]) -> None:
        for step, metrics in fetched:
            self._check(step, metrics)
            ratios = metrics.pop("gradient_ratios", None)
            if ratios is not None and np.isfinite(ratios).all():
                self._ratios = (step, ratios)
        step = fetched[-1][0]
        if self._ratios is not None:
            at, ratios = self._ratios
            names = [f"gradient_ratio/{layer}" for layer in self._layers]
            self._writer.write(at, dict(zip(names, ratios.tolist(), strict=True)))
        row = {
            f"train/{name}": _mean([metrics[name] for _, metrics in fetched])
            for name in fetched[0][1]
        }
        row["learning_rate"] = float(self._experiment.schedule(step - 1))
        row["epoch"] = step / self._experiment.timeline.steps_per_epoch
        self._writer.write(step, row)
        self._progress.show_training(step, row)

    def _check(self, step: int, metrics: dict[str, Any]) -> None:
        if math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"]):
            self._skipped_in_a_row = 0
            return
        self._skipped_in_a_row += 1
        if "skipped" not in metrics:
            raise Diverged(self._divergence(step, metrics), step)
        if self._skipped_in_a_row == _MOST_SKIPPED:
            reason = self._divergence(step, metrics)
            raise Diverged(f"{_MOST_SKIPPED} updates skipped in a row; {reason}", step)

    def _divergence(self, step: int, metrics: dict[str, Any]) -> str:
        agc = self._experiment.config.optim.agc.clipping
        remedy = (
            f"lower optim.learning_rate or optim.agc.clipping (now {agc:g})"
            if agc
            else "turn AGC on (optim.agc.clipping=0.1) or lower optim.learning_rate"
        )
        rate = float(self._experiment.schedule(step - 1))
        return (
            f"step {step}: the loss is {metrics['loss']}, the norm of the gradient "
            f"{metrics['grad_norm']}; likely cause: the learning rate, {rate:g} at "
            f"that step, is too high; {remedy}{self._largest_ratio()}"
        )

    def _largest_ratio(self) -> str:
        if self._ratios is None:
            return ""
        step, ratios = self._ratios
        return (
            f"; the largest gradient / weight norm at step {step} was "
            f"{ratios.max():.3g}, of {self._layers[ratios.argmax()]}"
        )


def _mean(values: list[Any]) -> float:
    """Mean of the finite values: the others are of skipped updates."""
    finite = [float(value) for value in values if np.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
