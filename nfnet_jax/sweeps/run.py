"""A sweep from its space to the table of its trials."""

import os
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from nfnet_jax.config import check_config
from nfnet_jax.config.base import override_by_text
from nfnet_jax.config.keys import BEST_METRICS
from nfnet_jax.sweeps import summary
from nfnet_jax.sweeps.space import Space, as_flags, as_texts
from nfnet_jax.sweeps.study import open_storage, open_study, work
from nfnet_jax.sweeps.trial import train
from nfnet_jax.utils.errors import UserError


def check_points(space: Space, config: ConfigDict) -> None:
    """Raises UserError if `config` cannot take the values of some planned trial."""
    for point in space.planned():
        changed = config.copy_and_resolve_references()
        for key, text in as_texts(point).items():
            override_by_text(changed, key, text)
        check_config(changed)


def list_trials(space: Space, arguments: Sequence[str], workdir: Path) -> None:
    """Prints the command of each planned trial, and the ranges that are drawn from."""
    for place, point in enumerate(space.planned()):
        print(summary.command(arguments, point, _trial_workdir(workdir, place)))
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
        _make(workdir)
    study = open_study(
        open_storage(storage or os.path.join(workdir, "study.db")),
        name,
        space,
        definition=[*space.describe(), *arguments, f"--metric={metric}"],
        direction="maximize" if BEST_METRICS[metric] is max else "minimize",
        prune=prune,
    )
    _make(workdir)

    def objective(place, values, hopeless):
        flags = [*arguments, *as_flags(values)]
        return train(flags, _trial_workdir(workdir, place), metric, hopeless)

    work(study, space, objective)
    rows = summary.table(study, metric)
    summary.write_table(rows, workdir / "trials.csv")
    print(summary.aligned(rows))
    best = summary.best_trial(study)
    if best is None:
        raise UserError(
            f"no trial ended well; their output is in {workdir}/trials/*.log"
        )
    again = workdir.with_name(f"{workdir.name}_best")
    print(f"\nthe best: {metric} {best.value:.6g}; to train it again:\n")
    print(summary.command(arguments, summary.values_of(best), again))
    files = [workdir / "trials.csv", *summary.write_plots(study, workdir)]
    print(f"\nwritten: {', '.join(map(str, files))}")


def _trial_workdir(workdir: Path, place: int) -> Path:
    return workdir / "trials" / f"{place:04}"


def _make(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir: cannot write {workdir}: {error.strerror}"
        ) from error
