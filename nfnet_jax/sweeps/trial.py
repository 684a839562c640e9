"""One training of a sweep, in a process of its own, so that a crash stays there."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from optuna import TrialPruned

from nfnet_jax.utils.strict_json import loads

_POLL_SECONDS = 0.2


class Failed(Exception):
    """A training ended without a result; the message is its last line."""


def train(
    arguments: Sequence[str],
    workdir: Path,
    metric: str,
    hopeless: Callable[[int, float], bool],
) -> float:
    """Runs `python -m nfnet_jax.train` with `arguments` in `workdir`.

    After every evaluation `hopeless(step, value)` gets the `metric` of the test split,
    such as "accuracy"; True ends the training. Its output goes to `workdir`.log. It
    ends when this process does, even if this process is killed.

    Returns:
      The metric of the last evaluation.

    Raises:
      TrialPruned: it was hopeless.
      Failed: it ended otherwise than well, or with a metric that is not finite.
    """
    workdir.parent.mkdir(parents=True, exist_ok=True)
    log = workdir.with_suffix(".log")
    command = [sys.executable, "-m", __package__, *arguments, f"--workdir={workdir}"]
    value = math.nan
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        for step, value in _evaluations(process, workdir / "metrics.jsonl", metric):
            if hopeless(step, value):
                raise TrialPruned(f"step {step}: {metric} {value:.4g}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()
    if process.returncode:
        raise Failed(_last_line(log) or f"exit code {process.returncode}")
    if not math.isfinite(value):
        raise Failed(f"the last {metric} is not finite")
    return value


def _evaluations(
    process: subprocess.Popen, path: Path, metric: str
) -> Iterator[tuple[int, float]]:
    """(step, value) of every evaluation in a metrics.jsonl, until the process ends."""
    read, running = 0, True
    while running:
        running = process.poll() is None
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        for row in map(loads, whole[read:].splitlines()):
            if f"test/{metric}" in row:
                value = row[f"test/{metric}"]
                yield row["step"], math.nan if value is None else value
        read = len(whole)
        if running:
            time.sleep(_POLL_SECONDS)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")[:500]
