"""Reads the files of a run, finished or not."""

import dataclasses
import datetime
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from nfnet_jax.config import leaves, to_json
from nfnet_jax.training.workdir import read_config, read_result
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.strict_json import loads


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """A metric: `values` float64 [N] after `steps` int64 [N] updates, in order."""

    steps: np.ndarray
    values: np.ndarray

    @property
    def last(self) -> float:
        return float(self.values[-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """A run: its `name` on the page, config, metrics by name, result.json if it ended.

    `steps_per_epoch` and `last_written`, the time of metrics.jsonl in UTC, are None
    before the first line of metrics. `unreadable` counts lines of metrics.jsonl that
    are no metrics, as a crash may leave.
    """

    name: str
    workdir: str
    config: ConfigDict
    metrics: dict[str, Series]
    steps_per_epoch: float | None
    result: dict[str, Any] | None
    unreadable: int
    last_written: datetime.datetime | None

    @property
    def keys(self) -> dict[str, Any]:
        """The config by dotted keys: {"optim.learning_rate": 0.1, ...}"""
        return leaves(to_json(self.config))

    @property
    def versions(self) -> dict[str, str]:
        """Packages that a finished run used, and their versions."""
        return (self.result or {}).get("versions", {})

    @property
    def last_step(self) -> int:
        """The largest update that was logged, 0 before the first line."""
        return max((int(s.steps[-1]) for s in self.metrics.values()), default=0)

    def epochs(self, steps: np.ndarray) -> np.ndarray:
        """Passes over the training split after so many updates."""
        return steps / (self.steps_per_epoch or math.nan)


def read_records(workdirs: Sequence[str]) -> list[Record]:
    """The runs in `workdirs`, each named by its directory, or its path if need be.

    Raises:
      UserError: a directory that holds no run, or is given twice.
    """
    paths = [os.path.normpath(workdir) for workdir in workdirs]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{path!r} is given twice, expected different runs")
    names = [os.path.basename(os.path.abspath(path)) for path in paths]
    short = len(set(names)) == len(names)
    return [
        _read(path, name if short else path)
        for path, name in zip(paths, names, strict=True)
    ]


def _read(workdir: str, name: str) -> Record:
    try:
        config = read_config(workdir)
    except UserError as error:
        raise UserError(str(error).removeprefix("--workdir: ")) from error
    metrics = os.path.join(workdir, "metrics.jsonl")
    rows, unreadable = _read_rows(metrics)
    per_epoch = (row["step"] / row["epoch"] for row in rows if row.get("epoch", 0) > 0)
    written = os.stat(metrics).st_mtime if rows else None
    return Record(
        # Names of directories may hold bytes that are no text.
        name.encode(errors="surrogateescape").decode(errors="replace"),
        workdir,
        config,
        _by_metric(rows),
        next(per_epoch, None),
        read_result(workdir),
        unreadable,
        datetime.datetime.fromtimestamp(written, datetime.UTC) if written else None,
    )


def _read_rows(path: str) -> tuple[list[dict[str, float]], int]:
    """The metrics of a run that may still write, and the number of unreadable lines."""
    if not os.path.exists(path):
        return [], 0
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().split("\n")
    # The text after the last line end is being written now.
    parsed = [_parse(line) for line in lines[:-1]]
    rows = [row for row in parsed if row is not None]
    return rows, len(parsed) - len(rows)


def _parse(line: str) -> dict[str, float] | None:
    try:
        row = loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    if not all(value is None or type(value) in (int, float) for value in row.values()):
        return None
    return {name: math.nan if v is None else v for name, v in row.items()}


def _by_metric(rows: Sequence[dict[str, float]]) -> dict[str, Series]:
    """Series by name; of steps that a resumed run wrote again, the last ones count."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for name in row.keys() - {"step", "epoch"}:
            found.setdefault(name, {})[int(row["step"])] = row[name]
    return {
        name: Series(
            np.asarray(sorted(values), np.int64),
            np.asarray([values[step] for step in sorted(values)], np.float64),
        )
        for name, values in sorted(found.items())
    }
