"""From values to places on a chart, and the round values to label."""

import math
from typing import NamedTuple

import numpy as np

_LOG_FROM = 12.0
"""Ratio of the largest to the least positive value from which an axis is
logarithmic."""
_DECADES = 6


class Axis(NamedTuple):
    """`low` is drawn at the coordinate `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """The coordinate of `value`, which is moved onto the axis where it is off."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """A few round values on the axis."""
        return _log_ticks(self) if self.log else _ticks(self.low, self.high)


def axis_from_zero(values: np.ndarray, start: float, end: float) -> Axis:
    """To the largest of finite `values`, none of which is negative."""
    return Axis(0.0, float(values.max()) or 1.0, start, end)


def round_axis(
    values: np.ndarray, start: float, end: float, may_be_log: bool = True
) -> Axis:
    """With some room around finite `values`; from 0 where that is near, logarithmic
    where positive ones differ much."""
    low, high = float(values.min()), float(values.max())
    if may_be_log and low >= 0 and high > 0:
        least = max(float(values[values > 0].min()), high * 10.0**-_DECADES)
        if high > _LOG_FROM * least:
            return Axis(least / 1.2, high * 1.2, start, end, log=True)
    if 0 <= low < 0.6 * high:
        low = 0.0
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(low - room if low else low, high + room, start, end)


def _ticks(low: float, high: float) -> list[float]:
    step = _round_step((high - low) / 5)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _round_step(step: float) -> float:
    size = 10.0 ** math.floor(math.log10(step))
    return size * next(m for m in (1, 2, 2.5, 5, 10) if step <= m * size * 1.0001)


def _log_ticks(axis: Axis) -> list[float]:
    first = math.floor(math.log10(axis.low))
    last = math.ceil(math.log10(axis.high))
    every = -(-(last - first) // 6)
    marks = (1, 2, 5) if last - first <= 3 else (1,)
    found = [m * 10.0**e for e in range(first, last + 1, every) for m in marks]
    return [value for value in found if axis.low <= value <= axis.high]
