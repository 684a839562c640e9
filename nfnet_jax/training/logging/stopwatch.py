"""How fast a run trains, and how long it will."""

import contextlib
import math
import time
from collections.abc import Iterator

from nfnet_jax.training.flops import Work
from nfnet_jax.training.timeline import Timeline


class Stopwatch:
    """Training rate without compilation and evaluation, and the time left.

    Between `start` and `stop` time counts; `step` is always the number of updates that
    are complete.
    """

    def __init__(self, batch_size: int, work: Work, plan: Timeline):
        self._batch_size, self._work, self._plan = batch_size, work, plan
        self.steps, self.seconds = 0, 0.0
        self._evaluation = 0.0
        self._since: tuple[int, float] | None = None
        self._late: tuple[int, float] | None = None
        # Images and operations a second.
        self._rates = (math.nan, math.nan)
        self._operations = 0

    @property
    def running(self) -> bool:
        return self._since is not None

    def start(self, step: int) -> None:
        """From here on, time counts."""
        self._since, self._late = (step, time.perf_counter()), None

    def lap(self, step: int) -> None:
        """Counts the time until here and goes on, if it runs."""
        if self._since is None:
            return
        before, began = self._since
        self.start(step)
        self.steps += step - before
        self.seconds += self._since[1] - began
        self._operations += self._work.between(before, step)
        if self.steps:
            images = self.steps * self._batch_size
            self._rates = (images / self.seconds, self._operations / self.seconds)

    def late(self, step: int) -> None:
        """More than `step` updates may be complete: as many more each time.

        From one call to the next, the rate is right nevertheless.
        """
        before, self._late = self._late, (step, time.perf_counter())
        if before and step > before[0]:
            seconds = self._late[1] - before[1]
            images = (step - before[0]) * self._batch_size
            operations = self._work.between(before[0], step)
            self._rates = (images / seconds, operations / seconds)

    def stop(self, step: int) -> None:
        """Time until here counts."""
        self.lap(step)
        self._since = None

    @contextlib.contextmanager
    def evaluating(self, step: int) -> Iterator[None]:
        """What is done in this context is an evaluation, not training."""
        self.stop(step)
        began = time.perf_counter()
        yield
        self._evaluation = time.perf_counter() - began
        self.start(step)

    @property
    def images_per_second(self) -> float:
        """Mean rate, nan before the second step."""
        images = self.steps * self._batch_size
        return images / self.seconds if self.steps else math.nan

    @property
    def recent_images_per_second(self) -> float:
        """The last rate that was measured, nan before the second step."""
        return self._rates[0]

    def seconds_left(self, step: int) -> float:
        """Until the last update, at the operations a second measured last.

        Evaluations count as long as the last one was; the first is not counted before
        it has been. nan before the second step.
        """
        training = self._work.between(step, self._plan.steps) / self._rates[1]
        return training + self._evaluation * self._plan.evaluations_after(step)
