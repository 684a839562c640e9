r"""Trains with many values of config keys and prints the best.

    python -m nfnet_jax.sweep --config configs/digits.py \
        --grid config.optim.learning_rate=0.05,0.1,0.2
    python -m nfnet_jax.sweep --config configs/digits.py --trials 30 \
        --sample config.optim.learning_rate=log:0.01:1

Start the same command on as many machines as there are, with one --storage.
"""

import os
from pathlib import Path

from nfnet_jax import cli
from nfnet_jax.config.keys import BEST_METRICS
from nfnet_jax.config.kinds import Choice, Int, Several, Switch
from nfnet_jax.utils.errors import UserError


def main(argv: list[str]) -> None:
    """Makes the study or joins it, works until it is done, prints the results."""
    flags = cli.parse(
        argv,
        __doc__,
        config="needed",
        trials=Int(
            None, "number of trials to draw, for --sample and sweep(trial)", "[1, inf)"
        ),
        metric=Choice(
            "accuracy", "score of the last evaluation to choose by", tuple(BEST_METRICS)
        ),
        prune=Switch(
            True,
            "stop trials that are worse than the median of others at the same step",
        ),
        study="name of the study (default: sweep_NAME)",
        storage="file, or database by SQLAlchemy's URL, that workers share (default: "
        "WORKDIR/study.db)",
        workdir="directory where all is written (default: runs/STUDY)",
        grid=Several(
            (), "config.KEY=A,B,C: each of these values; several flags make a grid"
        ),
        sample=Several(
            (),
            "config.KEY=log:LOW:HIGH, uniform:LOW:HIGH or A,B,C: drawn for each trial, "
            "by a sampler that learns from the other trials",
        ),
        dry_run=Switch(False, "list the trials only"),
    )
    try:
        from nfnet_jax.sweeps import run
        from nfnet_jax.sweeps.space import make_space
    except ImportError as error:
        raise UserError(
            f"sweeps need {error.name}: pip install -e '.[sweep]'"
        ) from error
    space = make_space(flags.grid, flags.sample, flags.trials, flags.names.get("sweep"))
    run.check_points(space, flags.config)
    name = flags.study or f"sweep_{flags.config.name}"
    workdir = Path(flags.workdir or os.path.join("runs", name))
    if flags.dry_run:
        run.list_trials(space, flags.config_flags, workdir)
        return
    run.run_sweep(
        space,
        flags.config_flags,
        name,
        workdir,
        metric=flags.metric,
        prune=flags.prune,
        storage=flags.storage,
    )


if __name__ == "__main__":
    cli.run(main)
