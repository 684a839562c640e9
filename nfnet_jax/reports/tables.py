"""Results, cost and configs of runs as tables: a column for each run."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nfnet_jax.config import base_config, leaves, to_json
from nfnet_jax.config.keys import KEYS
from nfnet_jax.reports.elements import Child, Element, element, table
from nfnet_jax.reports.measured import Measured
from nfnet_jax.reports.record import Record
from nfnet_jax.reports.units import duration, grouped, number, percent, with_prefix
from nfnet_jax.utils.strict_json import dumps


class Fact(NamedTuple):
    """A row of the comparison: a value for each run, how it is written, and whether the
    `best` is the largest (max), the smallest (min), or none is."""

    name: str
    value: Callable[[Record, Measured], Any]
    text: Callable[[Any], str]
    best: Callable | None = None


def _metric(name: str) -> Callable[[Record, Measured], float | None]:
    def last(record: Record, _: Measured) -> float | None:
        return record.metrics[name].last if name in record.metrics else None

    return last


def _best_accuracy(record: Record, _: Measured) -> float | None:
    """Of all evaluations, of parameters and of their average."""
    found = [
        np.nanmax(record.metrics[name].values)
        for name in ("test/accuracy", "test/accuracy_ema")
        if name in record.metrics and np.isfinite(record.metrics[name].values).any()
    ]
    return float(max(found)) if found else None


def _result(name: str) -> Callable[[Record, Measured], Any]:
    return lambda record, _: (record.result or {}).get(name)


def _of_network(name: str) -> Callable[[Record, Measured], int | None]:
    """Of a finished run as it wrote it, of another one as its network is."""

    def value(record: Record, measured: Measured) -> int | None:
        counted = measured.counts and getattr(measured.counts, name)
        return (record.result or {}).get(name, counted)

    return value


def _devices(record: Record, _: Measured) -> str | None:
    return (record.result or {}).get("versions", {}).get("devices")


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{number(value)} images/s"


def last_epoch(record: Record) -> float:
    """Passes over the training split that were logged."""
    return float(record.epochs(np.asarray(record.last_step)))


test_accuracy = _metric("test/accuracy")
averaged_accuracy = _metric("test/accuracy_ema")
test_loss = _metric("test/loss")
parameters = _of_network("parameters")
multiply_adds = _of_network("multiply_adds")

OUTCOME = (
    Fact("test accuracy", test_accuracy, percent, max),
    Fact("test accuracy, averaged parameters", averaged_accuracy, percent, max),
    Fact("best test accuracy of any evaluation", _best_accuracy, percent, max),
    Fact("test loss", test_loss, lambda v: number(v, 4), min),
    Fact(
        "test loss, averaged parameters",
        _metric("test/loss_ema"),
        lambda v: number(v, 4),
        min,
    ),
)
COST = (
    Fact("updates", lambda record, _: record.last_step, grouped),
    Fact("epochs", lambda record, _: last_epoch(record), number),
    Fact("time, compilation included", _result("seconds"), duration, min),
    Fact("training rate", _result("images_per_second"), _rate, max),
    Fact(
        "training cost", _result("train_flops"), lambda v: with_prefix(v, "FLOP"), min
    ),
    Fact("parameters", parameters, grouped, min),
    Fact(
        "multiply-adds of an image",
        multiply_adds,
        lambda v: with_prefix(v, "MAC"),
        min,
    ),
    Fact("devices", _devices, _text),
)


def fact_table(
    facts: Sequence[Fact],
    records: Sequence[Record],
    measured: Sequence[Measured],
    caption: str,
) -> Element:
    """Values by run, the best one of several in bold."""
    rows = []
    for fact in facts:
        values = [fact.value(*both) for both in zip(records, measured, strict=True)]
        texts = [fact.text(value) for value in values]
        best = _best(fact, values)
        rows.append(
            [
                fact.name,
                *(
                    element("strong", text) if best is not None and v == best else text
                    for v, text in zip(values, texts, strict=True)
                ),
            ]
        )
    names = [record.name for record in records]
    return table([element("td"), *names], rows, caption, class_="facts")


def _best(fact: Fact, values: Sequence[Any]) -> Any:
    """None where there is no better and worse."""
    if fact.best is None:
        return None
    known = {v for v in values if v is not None and math.isfinite(v)}
    return fact.best(known) if len(known) > 1 else None


def version_table(record: Record) -> Element | None:
    """Of the packages that a finished run used."""
    versions = (record.result or {}).get("versions", {})
    if not versions:
        return None
    return table(["package", "version"], list(versions.items()), "Versions")


def changed_keys(records: Sequence[Record]) -> Element | str:
    """Keys that a run set to something else than the base config."""
    defaults = leaves(to_json(base_config()))
    return _key_table(
        [key for key in KEYS if any(r.keys[key] != defaults[key] for r in records)],
        records,
        "Keys that are not at their defaults",
    )


def differing_keys(records: Sequence[Record]) -> Element | str:
    """Keys that are not the same in all runs."""
    return _key_table(
        [
            key
            for key in KEYS
            if any(r.keys[key] != records[0].keys[key] for r in records)
        ],
        records,
        "Keys that differ between the runs",
    )


def all_keys(records: Sequence[Record]) -> Element | str:
    """The whole config."""
    return _key_table(list(KEYS), records, "All keys")


def _key_table(
    keys: Sequence[str], records: Sequence[Record], caption: str
) -> Element | str:
    if not keys:
        return f"{caption}: none."
    defaults = leaves(to_json(base_config()))
    rows: list[list[Child]] = [
        [
            _key(key),
            *(_value(record.keys[key]) for record in records),
            _value(defaults[key]),
            element("td", KEYS[key].meaning, class_="wide meaning"),
        ]
        for key in keys
    ]
    head = ["key", *(record.name for record in records), "default"]
    meaning = element("th", "meaning", scope="col", class_="wide")
    return table([*head, meaning], rows, caption)


def _key(key: str) -> Element:
    """May be broken after its dots."""
    *sections, leaf = key.split(".")
    parts: list[Child] = []
    for section in sections:
        parts += [f"{section}.", element("wbr")]
    return element("code", *parts, leaf)


def _value(value: Any) -> Element | str:
    """As JSON, in which "1" and 1 differ."""
    if value is None:
        return "unset"
    return element("code", dumps(value, ensure_ascii=False))
