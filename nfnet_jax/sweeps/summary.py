"""Results of a sweep: a table, a file with it, plots."""

import csv
import shlex
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nfnet_jax.sweeps.space import Values, as_flags, as_text
from nfnet_jax.sweeps.study import PLACE, VALUES, planned_trials
from nfnet_jax.utils.errors import UserError

_ENDED = {TrialState.COMPLETE: "", TrialState.PRUNED: "stopped, hopeless"}


def table(study: optuna.Study, metric: str) -> list[list[str]]:
    """Returns a header and a row for each trial, the best first: its place in the plan,
    the values that it set, the metric, remarks."""
    trials = sorted(planned_trials(study), key=lambda trial: _rank(study, trial))
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    rows = [["trial", *keys, metric, ""]]
    for trial in trials:
        values = [as_text(trial.params.get(key, "")) for key in keys]
        ended = trial.state == TrialState.COMPLETE and trial.value is not None
        place = str(trial.user_attrs[PLACE])
        rows.append(
            [place, *values, as_text(trial.value) if ended else "", _remark(trial)]
        )
    return rows


def aligned(rows: Sequence[Sequence[str]], widest: int = 60) -> str:
    """Returns the rows as lines, in columns."""
    cut = [[cell[:widest] for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cut
    )


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Returns the best of the trials that ended well, None if none did."""
    ended = [t for t in planned_trials(study) if t.state == TrialState.COMPLETE]
    return min(ended, key=lambda trial: _rank(study, trial), default=None)


def values_of(trial: FrozenTrial) -> Values:
    """Returns the config keys that a trial set, whatever its parameters are called."""
    return trial.user_attrs[VALUES]


def command(arguments: Sequence[str], values: Values, workdir: Path) -> str:
    """Returns the command that trains with a sweep's `arguments` and these values."""
    flags = [*arguments, *as_flags(values), f"--workdir={workdir}"]
    return shlex.join(["python", "-m", "nfnet_jax.train", *flags])


def write_table(rows: Sequence[Sequence[str]], path: Path) -> None:
    """Writes the table as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_plots(study: optuna.Study, directory: Path) -> list[Path]:
    """Writes history, parallel coordinates and importance of keys, if trials suffice.

    Raises:
      UserError: matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install -e '.[sweep]'") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots

    ended = [t for t in planned_trials(study) if t.state == TrialState.COMPLETE]
    # Importance compares trials, and needs some that differ.
    wanted: dict[str, Callable[..., Any]] = {"history": plots.plot_optimization_history}
    if len({trial.value for trial in ended}) > 1:
        wanted |= {
            "parallel": plots.plot_parallel_coordinate,
            "importance": plots.plot_param_importances,
        }
    written = []
    for name, plot in wanted.items() if ended else ():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            axes = plot(study)
            path = directory / f"{name}.png"
            axes.figure.set_size_inches(8, 5)
            axes.figure.savefig(path, dpi=120, bbox_inches="tight")
        plt.close(axes.figure)
        written.append(path)
    return written


def _rank(study: optuna.Study, trial: FrozenTrial) -> tuple[bool, float]:
    if trial.state != TrialState.COMPLETE:
        return True, 0.0
    highest = study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert trial.value is not None
    return False, -trial.value if highest else trial.value


def _remark(trial: FrozenTrial) -> str:
    if trial.state in _ENDED:
        return _ENDED[trial.state]
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs.get('error', 'its worker was killed')}"
    return trial.state.name.lower()
