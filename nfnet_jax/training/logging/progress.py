"""How far a run is, on the screen: a bar on a terminal, lines elsewhere."""

import math
import sys

import jax
import tqdm

from nfnet_jax.training.logging.stopwatch import Stopwatch

_MEASURED_STEPS, _MEASURED_SECONDS = 10, 10.0


class Progress:
    """Shows rate, loss, accuracy and time left; a context manager that ends the bar.

    Of several processes the first one alone shows a bar.
    """

    def __init__(self, stopwatch: Stopwatch, *, first_step: int, steps: int):
        self.stopwatch, self._steps = stopwatch, steps
        self._told = False
        terminal = sys.stderr.isatty() and jax.process_index() == 0
        self._bar = tqdm.tqdm(
            total=steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            disable=not terminal,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._bar.close()

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        if self._bar.disable:
            print(line, flush=True)
        else:
            self._bar.write(line)

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        self._bar.update(step - self._bar.n)

    @property
    def measuring(self) -> bool:
        """Whether steps are to be waited for, until `measure` knows the rate."""
        return self.stopwatch.running and not self._told

    def measure(self, step: int) -> None:
        """Says the expected time once enough steps, of which `step` are complete, have
        been measured."""
        watch = self.stopwatch
        watch.lap(step)
        if watch.steps < _MEASURED_STEPS and watch.seconds < _MEASURED_SECONDS:
            return
        self._told = True
        if step < self._steps:
            self.say(
                f"{watch.images_per_second:,.0f} images/s in the first {watch.steps} "
                f"steps that were measured: {self._time_left(step)}, and evaluations"
            )

    def show_training(self, step: int, row: dict[str, float]) -> None:
        """The means of an interval that ended with `step`."""
        parts = [
            f"loss {row['train/loss']:.4f}",
            f"accuracy {row['train/accuracy']:.2%}",
        ]
        rate = self.stopwatch.recent_images_per_second
        parts += [f"{rate:,.0f} images/s"] if math.isfinite(rate) else []
        if not self._bar.disable:
            self._bar.set_postfix_str(", ".join(parts))
            return
        parts += [f"epoch {row['epoch']:.2f}", self._time_left(step)]
        self.say("  ".join([f"step {step}/{self._steps}", *parts]))

    def show_test(self, step: int, scores: dict[str, float]) -> None:
        """What an evaluation found."""
        self.say(
            f"step {step}/{self._steps}  test: accuracy {scores['accuracy']:.2%} "
            f"(EMA {scores['accuracy_ema']:.2%})  loss {scores['loss']:.4f} "
            f"(EMA {scores['loss_ema']:.4f})"
        )

    def _time_left(self, step: int) -> str:
        seconds = self.stopwatch.seconds_left(step)
        if not math.isfinite(seconds):
            return "time left unknown"
        return f"{tqdm.tqdm.format_interval(seconds)} left"
