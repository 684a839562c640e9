"""Results, cost and configs of runs as rows of tables: a value for each run."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nfnet_jax.config import base_config, leaves, to_json
from nfnet_jax.config.keys import KEYS
from nfnet_jax.reports.measured import Measured
from nfnet_jax.reports.record import Record
from nfnet_jax.utils.units import duration, grouped, number, percent, with_prefix


class Quantity(NamedTuple):
    """A row of the comparison: a value for each run, its text, and the better end.

    `best` is max, min, or None where no value is better.
    """

    name: str
    value: Callable[[Record, Measured], Any]
    text: Callable[[Any], str]
    best: Callable | None = None


class KeyRow(NamedTuple):
    """A config key, its value in each run, its default and meaning."""

    key: str
    values: list[Any]
    default: Any
    meaning: str


def _metric(name: str) -> Callable[[Record, Measured], float | None]:
    return lambda record, _: (
        record.metrics[name].last if name in record.metrics else None
    )


def _best_accuracy(record: Record, _: Measured) -> float | None:
    """Highest of all evaluations, of parameters and of their average."""
    found = [
        np.nanmax(record.metrics[name].values)
        for name in ("test/accuracy", "test/accuracy_ema")
        if name in record.metrics and np.isfinite(record.metrics[name].values).any()
    ]
    return float(max(found)) if found else None


def _result(name: str) -> Callable[[Record, Measured], Any]:
    return lambda record, _: (record.result or {}).get(name)


def _of_network(name: str) -> Callable[[Record, Measured], int | None]:
    """Count in the result of a finished run, else of the network that was built."""

    def value(record: Record, measured: Measured) -> int | None:
        counted = measured.counts and getattr(measured.counts, name)
        return (record.result or {}).get(name, counted)

    return value


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{number(value)} images/s"


_loss = functools.partial(number, digits=4)
_flops = functools.partial(with_prefix, unit="FLOP")
_macs = functools.partial(with_prefix, unit="MAC")


def last_epoch(record: Record) -> float:
    """Passes over the training split that were logged."""
    return float(record.epochs(np.asarray(record.last_step)))


test_accuracy = _metric("test/accuracy")
averaged_accuracy = _metric("test/accuracy_ema")
test_loss = _metric("test/loss")
parameters = _of_network("parameters")
multiply_adds = _of_network("multiply_adds")

OUTCOME = (
    Quantity("test accuracy", test_accuracy, percent, max),
    Quantity("test accuracy, averaged parameters", averaged_accuracy, percent, max),
    Quantity("best test accuracy of any evaluation", _best_accuracy, percent, max),
    Quantity("test loss", test_loss, _loss, min),
    Quantity("test loss, averaged parameters", _metric("test/loss_ema"), _loss, min),
)
COST = (
    Quantity("updates", lambda record, _: record.last_step, grouped),
    Quantity("epochs", lambda record, _: last_epoch(record), number),
    Quantity("time, compilation included", _result("seconds"), duration, min),
    Quantity("training rate", _result("images_per_second"), _rate, max),
    Quantity("training cost", _result("train_flops"), _flops, min),
    Quantity("parameters", parameters, grouped, min),
    Quantity("multiply-adds of an image", multiply_adds, _macs, min),
    Quantity("devices", lambda record, _: record.versions.get("devices"), _text),
)


def comparison(
    quantities: Sequence[Quantity],
    records: Sequence[Record],
    measured: Sequence[Measured],
) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Name of each quantity; its text in each run, and True for the best of several."""
    rows = []
    for quantity in quantities:
        values = [quantity.value(*both) for both in zip(records, measured, strict=True)]
        best = None
        if quantity.best:
            known = {v for v in values if v is not None and math.isfinite(v)}
            best = quantity.best(known) if len(known) > 1 else None
        cells = [(quantity.text(v), best is not None and v == best) for v in values]
        rows.append((quantity.name, cells))
    return rows


def tiles(record: Record, measured: Measured) -> list[tuple[str, str, str]]:
    """Name, value and remark of the numbers that are looked for first."""
    result, both = record.result or {}, (record, measured)
    averaged = percent(averaged_accuracy(*both))
    updates = (
        f"{grouped(record.last_step)} updates, {number(last_epoch(record))} epochs"
    )
    rate, cost = result.get("images_per_second"), result.get("train_flops")
    cost_of_one = _macs(multiply_adds(*both))
    return [
        ("test accuracy", percent(test_accuracy(*both)), f"{averaged} averaged"),
        ("test loss", _loss(test_loss(*both)), "cross entropy, nats"),
        ("time", duration(result.get("seconds")), updates),
        ("training rate", number(rate), "images per second"),
        ("training cost", _flops(cost), "forward and backward"),
        ("parameters", grouped(parameters(*both)), f"{cost_of_one} an image"),
    ]


def all_keys(records: Sequence[Record]) -> list[KeyRow]:
    """The whole config."""
    defaults = leaves(to_json(base_config()))
    configs = [record.keys for record in records]
    return [
        KeyRow(name, [config[name] for config in configs], defaults[name], key.meaning)
        for name, key in KEYS.items()
    ]
