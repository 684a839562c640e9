"""Scores the last checkpoint of a run on its test split.

    python -m nfnet_jax.evaluate --workdir runs/digits
    python -m nfnet_jax.evaluate --workdir runs/cifar10 --split 'train[:10%]'

Prints one JSON object.
"""

from nfnet_jax import cli
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.strict_json import dumps


def main(argv: list[str]) -> None:
    """Prints one JSON object: the scores of the run's last checkpoint."""
    flags = cli.parse(
        argv,
        __doc__,
        workdir="directory of the run",
        data_dir="directory of the run's folder or TFDS set, if it has moved",
        split="split to evaluate on instead of the run's data.eval_split",
    )
    if not flags.workdir:
        raise UserError("--workdir is missing, expected the directory of a run")
    from nfnet_jax.training.trained import score_checkpoint, set_data_dir
    from nfnet_jax.training.workdir import read_config

    cli.prepare_jax()
    config = read_config(flags.workdir)
    if flags.data_dir:
        set_data_dir(config, flags.data_dir)
    if flags.split:
        config.data.eval_split = flags.split
    print(dumps(score_checkpoint(config, flags.workdir)))


if __name__ == "__main__":
    cli.run(main)
