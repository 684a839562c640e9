"""Space of a sweep: grids and ranges of config keys, or a function of the user's."""

import ast
import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from nfnet_jax.config import check_key
from nfnet_jax.config.keys import KEYS
from nfnet_jax.config.kinds import Int
from nfnet_jax.utils.errors import UserError, nearest

SCALES = ("log", "uniform")
Values = dict[str, Any]
"""Config keys without "config.", and their values."""


def as_flags(values: Values) -> list[str]:
    """Returns flags that set keys of the config."""
    return [f"--config.{key}={as_text(value)}" for key, value in values.items()]


def as_text(value: Any) -> str:
    """Returns a value as a flag writes it, with six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, uniform or uniform in logarithm."""

    low: float
    high: float
    log: bool
    whole: bool

    def __str__(self):
        scale = "log" if self.log else "uniform"
        return f"{scale} from {self.low:g} to {self.high:g}"

    def suggest(self, trial, key: str) -> float:
        """Draws a value by the sampler of the study."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def __str__(self):
        return f"one of {', '.join(map(str, self.values))}"

    def suggest(self, trial, key: str) -> Any:
        """Draws a value by the sampler of the study."""
        return trial.suggest_categorical(key, self.values)


@dataclasses.dataclass(frozen=True)
class Space:
    """Trials of a sweep.

    Every combination of the keys' values in `grid` is tried `trials` times, with
    `samples` drawn and `function`, `sweep(trial) -> {key: value}` of a config file,
    called for each trial.
    """

    grid: dict[str, Choice]
    samples: dict[str, Range | Choice]
    function: Callable[[Any], Values] | None = None
    trials: int = 1

    def planned(self) -> list[Values]:
        """Returns the values that each trial has before it starts."""
        axes = [[(key, v) for v in axis.values] for key, axis in self.grid.items()]
        points = [dict(point) for point in itertools.product(*axes)]
        return [point for point in points for _ in range(self.trials)]

    def suggest(self, trial) -> Values:
        """Returns all values that a trial of Optuna sets.

        Raises:
          UserError: the function gives no dict, or an unknown key.
        """
        axes = {**self.grid, **self.samples}
        values = {key: axis.suggest(trial, key) for key, axis in axes.items()}
        if self.function is None:
            return values
        found = self.function(trial)
        if not isinstance(found, dict):
            raise UserError(
                f"sweep(trial) returned {type(found).__name__}, expected a dict such "
                "as {'optim.learning_rate': 0.1}"
            )
        for key in found:
            check_key(str(key).removeprefix("config."))
        return values | {key.removeprefix("config."): v for key, v in found.items()}

    def describe(self) -> list[str]:
        """Returns a line for each key, the same for the same sweep."""
        lines = [f"{key}: each, {axis}" for key, axis in self.grid.items()]
        lines += [f"{key}: {axis}" for key, axis in self.samples.items()]
        lines += ["as the config file's sweep(trial) says"] if self.function else []
        return [*lines, f"{len(self.planned())} trials"]


def make_space(
    grids: Sequence[str],
    samples: Sequence[str],
    trials: int | None,
    function: Callable[[Any], Values] | None,
) -> Space:
    """Returns the space of the flags `--grid`, `--sample`, `--trials` and of a config's
    function `sweep`.

    Raises:
      UserError: nothing to vary, a key twice, an unknown key, a malformed range, or
        `trials` where nothing is drawn, or the other way round.
    """
    grid: dict[str, Any] = dict(_axis("grid", text) for text in grids)
    sampled = dict(_axis("sample", text) for text in samples)
    for key in {*grid, *sampled}:
        given = [t for t in (*grids, *samples) if _split("grid", t)[0] == key]
        if len(given) > 1:
            raise UserError(f"{key} is varied twice, by {' and '.join(given)}")
    if not (grid or sampled or function):
        raise UserError(
            "nothing to vary: expected --grid config.KEY=A,B,C, --sample "
            "config.KEY=log:LOW:HIGH, or a function sweep(trial) in the config file"
        )
    drawn = bool(sampled or function)
    if drawn and trials is None:
        raise UserError("--trials is missing, expected a whole number of at least 1")
    if trials and not drawn:
        raise UserError(
            f"--trials={trials} with a grid alone, expected --sample too: a grid has "
            "as many trials as points"
        )
    return Space(grid, sampled, function, trials or 1)


def _axis(flag: str, text: str) -> tuple[str, Range | Choice]:
    key, value = _split(flag, text)
    if flag == "grid" or ":" not in value:
        return key, _choice(flag, text, value)
    return key, _range(text, key, value)


def _split(flag: str, text: str) -> tuple[str, str]:
    key, equals, value = text.lstrip("-").partition("=")
    key = key.removeprefix("config.")
    check_key(key)
    if not equals or not value:
        raise UserError(
            f"--{flag} {text}: expected --{flag} config.{key}="
            f"{'A,B,C' if flag == 'grid' else 'log:LOW:HIGH'}"
        )
    return key, value


def _choice(flag: str, text: str, value: str) -> Choice:
    # Not at commas within brackets, as in (0.5, 0.75).
    parts = re.split(r",(?![^(\[]*[)\]])", value)
    if "" in parts or len(set(parts)) < len(parts):
        raise UserError(f"--{flag} {text}: expected different values, as in 0.1,0.2")
    return Choice(tuple(map(_value, parts)))


def _value(text: str) -> Any:
    """Number, truth value or None if the text is one, or else the text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float | None) else text


def _range(text: str, key: str, value: str) -> Range:
    scale, *bounds = value.split(":")
    if scale not in SCALES:
        raise UserError(
            f"--sample {text}: scale {scale!r}, expected one of {', '.join(SCALES)}"
            f"{nearest(scale, SCALES)}"
        )
    try:
        low, high = map(float, bounds)
    except ValueError:
        raise UserError(
            f"--sample {text}: expected two numbers, as in {scale}:0.01:1"
        ) from None
    ordered = low < high and math.isfinite(high - low)
    if not ordered or (scale == "log" and low <= 0):
        least = "0 < LOW < HIGH" if scale == "log" else "LOW < HIGH"
        raise UserError(f"--sample {text}: expected {least}")
    whole = isinstance(KEYS[key], Int)
    if whole and not (low.is_integer() and high.is_integer()):
        raise UserError(f"--sample {text}: {key} is {KEYS[key].expected}")
    return Range(low, high, scale == "log", whole)
