r"""Trains a network, or continues a run that was stopped.

    python -m nfnet_jax.train --config configs/digits.py
    python -m nfnet_jax.train --config configs/cifar10.py \
        --config.optim.learning_rate=0.2 --workdir runs/faster

The same command continues from the last checkpoint. TensorBoard shows a run by
`tensorboard --logdir WORKDIR`.
"""

import os

from nfnet_jax import cli
from nfnet_jax.config import model_overrides
from nfnet_jax.utils.errors import UserError


def main(argv: list[str]) -> None:
    """Trains as the flags say and prints the result."""
    config, flags = cli.parse_config_flags(
        argv,
        about=__doc__,
        workdir="where the run is written (default: runs/NAME)",
        coordinator="HOST:PORT of the first of several processes, or auto: as Slurm, a "
        "TPU pod, Kubernetes or Open MPI says (default: one process)",
        processes="how many there are, with --coordinator=HOST:PORT",
        process="which of them this is, counted from 0",
    )
    workdir = flags.workdir or os.path.join("runs", config.name)
    from nfnet_jax.training.distributed import connect

    cli.prepare_jax()
    connect(flags.coordinator, flags.processes, flags.process)
    from nfnet_jax.training.finetune import has_checkpoint
    from nfnet_jax.training.loop import train

    pretrained = None
    if config.model.weights and not has_checkpoint(workdir):
        pretrained = load_weights(config)
    result = train(config, workdir, pretrained)
    rate = result["images_per_second"]
    print(
        f"test accuracy {result['test_accuracy']:.2%} "
        f"(EMA {result['test_accuracy_ema']:.2%}), {result['seconds']:.1f} s"
        f"{'' if rate is None else f', {rate:.0f} images/s'}: {workdir}/result.json"
    )


def load_weights(config):
    """The `Pretrained` that `config.model.weights` names: a run's, or published ones.

    A run gives the averaged parameters of its last checkpoint and the moments that it
    normalized images by.

    Raises:
      UserError: no such weights, damaged ones, or weights of another model; before they
        are downloaded, data that cannot be had or that the run does not fit.
    """
    from nfnet_jax.training.logging.wandb import check_wandb
    from nfnet_jax.training.setup import check_buildable, check_data

    check_buildable(config)
    check_wandb(config)
    check_data(config)
    weights = os.path.expanduser(config.model.weights)
    try:
        load = _load_run if os.path.isdir(weights) else _load_published
        return load(config, weights)
    except (UserError, ValueError) as error:
        reason = str(error).removeprefix("--workdir: ")
        raise UserError(f"model.weights: {reason}") from error


def _load_run(config, workdir: str):
    from nfnet_jax.training.finetune import Pretrained
    from nfnet_jax.training.trained import load_run

    trained = load_run(workdir)
    name, _, options = trained.model.spec
    if name != config.model.name:
        raise UserError(
            f"{workdir} is a run of {name!r}, model.name is {config.model.name!r}: "
            "expected the same"
        )
    return Pretrained(
        trained.variables["params"],
        trained.facts.mean,
        trained.facts.std,
        trained.variables.get("batch_stats", {}),
        # What this run sets itself comes first.
        {"name": name, **dict(options), **model_overrides(config)},
        trained.facts.class_names,
    )


def _load_published(config, weights: str):
    from nfnet_jax.data.class_names import imagenet_synsets
    from nfnet_jax.models.registry import find
    from nfnet_jax.training.finetune import Pretrained
    from nfnet_jax.weights.load import load_pretrained

    # A classifier that is not there is new anyway.
    model, params = load_pretrained(
        config.model.name, weights, headless=True, **model_overrides(config)
    )
    name, classes, options = model.spec
    variant = find(name)
    of_imagenet = classes == variant.num_classes == 1000
    return Pretrained(
        params,
        variant.mean,
        variant.std,
        network={"name": name, **dict(options)},
        class_names=(of_imagenet and imagenet_synsets()) or (),
    )


if __name__ == "__main__":
    cli.run(main)
