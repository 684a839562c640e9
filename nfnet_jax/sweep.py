r"""Trains with many values of config keys and tells the best.

    python -m nfnet_jax.sweep --config configs/digits.py \
        --grid config.optim.learning_rate=0.05,0.1,0.2
    python -m nfnet_jax.sweep --config configs/digits.py --trials 30 \
        --sample config.optim.learning_rate=log:0.01:1

Start the same command on as many machines as there are, with one --storage.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nfnet_jax import cli
from nfnet_jax.config.keys import BEST_METRICS
from nfnet_jax.utils.errors import UserError, nearest

FLAGS: dict[str, Any] = {
    "trials": "how many to draw, for --sample and sweep(trial)",
    "metric": f"of the last evaluation: {', '.join(BEST_METRICS)} (default: accuracy)",
    "prune": "true or false: stop trials that are worse than the median of the others "
    "at the same step (default: true)",
    "study": "its name (default: sweep_NAME)",
    "storage": "a file, or a database by SQLAlchemy's URL, which workers share "
    "(default: WORKDIR/study.db)",
    "workdir": "where all is written (default: runs/STUDY)",
}
REPEATED = {
    "grid": "config.KEY=A,B,C: each of these values; several make a grid",
    "sample": "config.KEY=log:LOW:HIGH, uniform:LOW:HIGH or A,B,C: drawn for each "
    "trial, by a sampler that learns from the others",
}


def main(argv: list[str]) -> None:
    """Makes the study or joins it, works until it is done, prints what was found."""
    config, flags = cli.parse_config_flags(
        argv,
        about=__doc__,
        repeated=REPEATED,
        switches={"dry_run": "list the trials only"},
        **FLAGS,
    )
    space, study, summary = _modules()
    arguments, metric = cli.config_arguments(argv), flags.metric or "accuracy"
    _check_choice("metric", metric, BEST_METRICS)
    _check_choice("prune", flags.prune or "true", ("true", "false"))
    found = space.make_space(
        flags.grid, flags.sample, flags.trials, cli.config_function(argv, "sweep")
    )
    for point in found.planned():
        cli.parse_config_flags([argv[0], *arguments, *summary.overrides(point)])
    name = flags.study or f"sweep_{config.name}"
    workdir = Path(flags.workdir or os.path.join("runs", name))
    if flags.dry_run:
        for place, point in enumerate(found.planned()):
            print(summary.command(arguments, point, _trial_workdir(workdir, place)))
        for key, drawn in found.samples.items():
            print(f"and config.{key} drawn from {drawn}")
        return
    if not flags.storage:
        _make(workdir)
    opened = study.open_study(
        study.open_storage(flags.storage or str(workdir / "study.db")),
        name,
        found,
        definition=[*found.describe(), *arguments, f"--metric={metric}"],
        direction="maximize" if BEST_METRICS[metric] is max else "minimize",
        prune=flags.prune != "false",
    )
    _make(workdir)

    def objective(place, values, hopeless):
        from nfnet_jax.sweeps.trial import train

        flags = [*arguments, *summary.overrides(values)]
        return train(flags, _trial_workdir(workdir, place), metric, hopeless)

    study.work(opened, found, objective)
    _tell(summary, opened, metric, arguments, workdir)


def _tell(summary, study, metric: str, arguments: list[str], workdir: Path) -> None:
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


def _modules():
    try:
        from nfnet_jax.sweeps import space, study, summary
    except ImportError as error:
        raise UserError(
            f"sweeps need {error.name}: pip install -e '.[sweep]'"
        ) from error
    return space, study, summary


def _check_choice(flag: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise UserError(
            f"--{flag} is {value!r}, expected one of {', '.join(choices)}"
            f"{nearest(value, choices)}"
        )


def _trial_workdir(workdir: Path, place: int) -> Path:
    return workdir / "trials" / f"{place:04}"


def _make(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir: cannot write {workdir}: {error.strerror}"
        ) from error


if __name__ == "__main__":
    cli.run(main)
