"""How fast a run trains."""

import math
import time


class Stopwatch:
    """Training rate without compilation and evaluation."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._steps, self._seconds = 0, 0.0
        self._since: tuple[int, float] | None = None

    def start(self, step: int) -> None:
        """From here on, time counts; `step` updates are complete."""
        self._since = (step, time.perf_counter())

    def pause(self, step: int) -> None:
        """Time until here counts; `step` updates are complete."""
        if self._since is not None:
            self._steps += step - self._since[0]
            self._seconds += time.perf_counter() - self._since[1]

    @property
    def images_per_second(self) -> float:
        """Mean rate, nan before the second step."""
        return (
            self._steps * self._batch_size / self._seconds if self._steps else math.nan
        )
