"""A sweep from its space to its results: a table, a file with it, plots."""

import csv
import os
import shlex
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, TrialState

from nfnet_jax.config import check_config
from nfnet_jax.config.base import override_by_text
from nfnet_jax.config.keys import BEST_METRICS
from nfnet_jax.sweeps.space import Space, Values, as_flags, as_text
from nfnet_jax.sweeps.study import (
    PLACE,
    VALUES,
    open_storage,
    open_study,
    planned_trials,
    work,
)
from nfnet_jax.sweeps.trial import train
from nfnet_jax.training.workdir import writing
from nfnet_jax.utils.errors import UserError

_ENDED = {TrialState.COMPLETE: "", TrialState.PRUNED: "stopped, hopeless"}
_WIDEST = 60


def check_points(space: Space, config: ConfigDict) -> None:
    """Raises UserError if `config` cannot take the values of some planned trial."""
    for point in space.planned():
        changed = config.copy_and_resolve_references()
        for key, value in point.items():
            override_by_text(changed, key, as_text(value))
        check_config(changed)


def list_trials(space: Space, arguments: Sequence[str], workdir: Path) -> None:
    """Prints the command of each planned trial, and the ranges that are drawn from."""
    for place, point in enumerate(space.planned()):
        print(_command(arguments, point, _trial_workdir(workdir, place)))
    for key, drawn in space.samples.items():
        print(f"and config.{key} drawn from {drawn}")


def run_sweep(
    space: Space,
    arguments: Sequence[str],
    name: str,
    workdir: Path,
    *,
    metric: str,
    prune: bool,
    storage: str | None = None,
) -> None:
    """Makes the study `name` or joins it, works until it is done, prints the results.

    `arguments` are flags of the config that all trials share; `storage` is shared by
    the workers, a file in `workdir` by default.

    Raises:
      UserError: another sweep of that name, files that cannot be written, or no trial
        that ended well.
    """
    if not storage:
        with writing(str(workdir)):
            workdir.mkdir(parents=True, exist_ok=True)

    def objective(place, values, hopeless):
        flags = [*arguments, *as_flags(values)]
        return train(flags, _trial_workdir(workdir, place), metric, hopeless)

    with open_storage(storage or os.path.join(workdir, "study.db")) as database:
        study = open_study(
            database,
            name,
            space,
            definition=[*space.describe(), *arguments, f"--metric={metric}"],
            direction="maximize" if BEST_METRICS[metric] is max else "minimize",
            prune=prune,
        )
        with writing(str(workdir)):
            workdir.mkdir(parents=True, exist_ok=True)
        work(study, space, objective)
        _tell_results(study, arguments, metric, workdir)


def _tell_results(
    study: optuna.Study, arguments: Sequence[str], metric: str, workdir: Path
) -> None:
    """Prints the table and the command of the best trial, writes them and the plots."""
    trials = ranked_trials(study)
    rows = table(trials, metric)
    with (workdir / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    print(_aligned(rows))
    best = trials[0]
    if best.state != TrialState.COMPLETE:
        raise UserError(
            f"no trial ended well; their output is in {workdir}/trials/*.log"
        )
    again = workdir.with_name(f"{workdir.name}_best")
    print(f"\nthe best: {metric} {best.value:.6g}; to train it again:\n")
    print(_command(arguments, best.user_attrs[VALUES], again))
    files = [workdir / "trials.csv", *_write_plots(study, trials, workdir)]
    print(f"\nwritten: {', '.join(map(str, files))}")


def ranked_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the planned trials: the best first, last those that did not end well."""
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1

    def rank(trial: FrozenTrial) -> tuple[bool, float]:
        ended = trial.state == TrialState.COMPLETE
        return not ended, sign * (trial.value or 0.0) if ended else 0.0

    return sorted(planned_trials(study), key=rank)


def table(trials: Sequence[FrozenTrial], metric: str) -> list[list[str]]:
    """Returns a header and a row for each trial: its place in the plan, the values that
    it set, the metric, remarks."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    rows = [["trial", *keys, metric, ""]]
    for trial in trials:
        values = [as_text(trial.params.get(key, "")) for key in keys]
        score = as_text(trial.value) if trial.state == TrialState.COMPLETE else ""
        rows.append([str(trial.user_attrs[PLACE]), *values, score, _remark(trial)])
    return rows


def _remark(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs.get('error', 'its worker was killed')}"
    return _ENDED.get(trial.state, trial.state.name.lower())


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """The rows as lines, in columns."""
    cut = [[cell[:_WIDEST] for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cut
    )


def _command(arguments: Sequence[str], values: Values, workdir: Path) -> str:
    """The command that trains with a sweep's `arguments` and these values."""
    flags = [*arguments, *as_flags(values), f"--workdir={workdir}"]
    return shlex.join(["python", "-m", "nfnet_jax.train", *flags])


def _write_plots(
    study: optuna.Study, trials: Sequence[FrozenTrial], directory: Path
) -> list[Path]:
    """Writes history, parallel coordinates, importance of keys, if trials suffice."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots

    # Importance compares trials, and needs some that differ.
    wanted: dict[str, Callable[..., Any]] = {"history": plots.plot_optimization_history}
    if len({t.value for t in trials if t.state == TrialState.COMPLETE}) > 1:
        wanted |= {
            "parallel": plots.plot_parallel_coordinate,
            "importance": plots.plot_param_importances,
        }
    written = []
    for name, plot in wanted.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            axes = plot(study)
            path = directory / f"{name}.png"
            axes.figure.set_size_inches(8, 5)
            axes.figure.savefig(path, dpi=120, bbox_inches="tight")
        plt.close(axes.figure)
        written.append(path)
    return written


def _trial_workdir(workdir: Path, place: int) -> Path:
    return workdir / "trials" / f"{place:04}"
