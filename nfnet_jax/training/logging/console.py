"""Terminal output of a run: a summary first, then its rate, progress and time left."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import tqdm

from nfnet_jax.optim.groups import describe_groups
from nfnet_jax.optim.tree import count
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.flops import Work
from nfnet_jax.training.timeline import Timeline

_MEASURED_STEPS, _MEASURED_SECONDS = 10, 10.0


def summarize(experiment: Experiment) -> str:
    """Model, data, length and cost, optimizer and devices, a line or more each."""
    config, timeline = experiment.config, experiment.timeline
    work, devices = experiment.work, jax.devices()
    params, _ = experiment.abstract_variables
    dataset, spec = experiment.dataset, experiment.data_spec
    shape = "x".join(map(str, spec.image_shape))
    kind, platform = devices[0].device_kind, jax.default_backend()
    named = platform if kind == platform else f"{platform} ({kind})"
    sections = {
        "model": f"{config.model.name}: {count(params):,} parameters, "
        f"{flop(2 * work.image)} an image\n{experiment.origin}",
        "data": f"{config.data.name}: {len(dataset.train):,} training and "
        f"{len(dataset.test):,} test images of {shape}, "
        f"{len(spec.class_names):,} classes",
        "training": f"{timeline.steps:,} steps of {config.data.batch_size:,} images, "
        f"{timeline.steps / timeline.steps_per_epoch:.4g} epochs, "
        f"{flop(work.between(0, timeline.steps))}",
        "optimizer": f"{config.optim.name} at a peak rate of {timeline.peak_rate:g}\n"
        f"{describe_groups(config.optim, params)}",
        "devices": f"{len(devices)} x {named}, {config.train.dtype}, "
        f"{config.parallel.mode}",
    }
    return "\n".join(
        f"{title if i == 0 else '':11}{line}"
        for title, text in sections.items()
        for i, line in enumerate(text.splitlines())
    )


def flop(operations: float) -> str:
    """Operations in words, such as "1.23 GFLOP"."""
    number = tqdm.tqdm.format_sizeof(operations)
    prefix = number[-1] if number[-1].isalpha() else ""
    return f"{number.removesuffix(prefix)} {prefix}FLOP"


class _Mark(NamedTuple):
    """A moment, in seconds, when `step` updates were known to be done."""

    step: int
    time: float


class Stopwatch:
    """Training rate without compilation and evaluation, and the time left.

    `start` and `stop` are called when the device is idle after `step` updates; the time
    between them counts. `behind` is called while the device works.
    """

    def __init__(
        self,
        batch_size: int,
        work: Work,
        plan: Timeline,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._batch_size, self._work, self._plan = batch_size, work, plan
        self._clock = clock
        self.steps, self.seconds = 0, 0.0
        self._operations = 0
        self._evaluation = 0.0
        self._started: _Mark | None = None
        self._behind: _Mark | None = None
        # Images and operations per second, measured last.
        self._rates = (math.nan, math.nan)

    @property
    def running(self) -> bool:
        return self._started is not None

    def start(self, step: int) -> None:
        """Begins the time that counts."""
        self._started, self._behind = _Mark(step, self._clock()), None

    def stop(self, step: int) -> None:
        """Ends the time that counts, whose mean rate is now the last one."""
        if self._started and step > self._started.step:
            self.steps += step - self._started.step
            self.seconds += self._clock() - self._started.time
            self._operations += self._work.between(self._started.step, step)
            self._set_rates(self.steps, self._operations, self.seconds)
        self._started = None

    def lap(self, step: int) -> None:
        """Adds the time until now to what was counted, and goes on."""
        if self.running:
            self.stop(step)
            self.start(step)

    def behind(self, step: int) -> None:
        """Records that `step` updates are known to be done.

        The device may be a constant number of steps ahead, so the rate between two
        calls is still exact.
        """
        former, self._behind = self._behind, _Mark(step, self._clock())
        if former and step > former.step:
            operations = self._work.between(former.step, step)
            seconds = self._behind.time - former.time
            self._set_rates(step - former.step, operations, seconds)

    def _set_rates(self, steps: int, operations: int, seconds: float) -> None:
        self._rates = (steps * self._batch_size / seconds, operations / seconds)

    @contextlib.contextmanager
    def evaluating(self, step: int) -> Iterator[None]:
        """Times this context as an evaluation, not as training."""
        self.stop(step)
        began = self._clock()
        yield
        self._evaluation = self._clock() - began
        self.start(step)

    @property
    def images_per_second(self) -> float:
        """Mean rate, nan before the second step."""
        images = self.steps * self._batch_size
        return images / self.seconds if self.steps else math.nan

    @property
    def recent_images_per_second(self) -> float:
        """Rate measured last, nan before the second step."""
        return self._rates[0]

    def seconds_left(self, step: int) -> float:
        """Time until the last update, at the operations per second measured last.

        Evaluations count as long as the last one took; before the first one they are
        not counted. nan before the second step.
        """
        training = self._work.between(step, self._plan.steps) / self._rates[1]
        return training + self._evaluation * self._plan.evaluations_after(step)


class Progress:
    """Shows rate, loss, accuracy and time left; a context manager that ends the bar.

    A bar on a terminal, lines elsewhere. In a run of several processes only the first
    one shows a bar.
    """

    def __init__(self, stopwatch: Stopwatch, *, first_step: int, steps: int):
        self.stopwatch, self._steps = stopwatch, steps
        self._announced = False
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
        """True while the first steps are timed: wait for each, then call `measure`."""
        return self.stopwatch.running and not self._announced

    def measure(self, step: int) -> None:
        """Times a step, and prints the expected time once enough of them are timed."""
        watch = self.stopwatch
        watch.lap(step)
        if watch.steps < _MEASURED_STEPS and watch.seconds < _MEASURED_SECONDS:
            return
        self._announced = True
        if step < self._steps:
            self.say(
                f"{watch.images_per_second:,.0f} images/s in the first {watch.steps} "
                f"steps that were measured: {self._time_left(step)}, and evaluations"
            )

    def show_training(self, step: int, row: dict[str, float]) -> None:
        """Shows the means of an interval that ended with `step`."""
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
        """Prints the scores of an evaluation."""
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
