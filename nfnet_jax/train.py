r"""Trains a network, or continues a run that was stopped.

    python -m nfnet_jax.train --config configs/digits.py
    python -m nfnet_jax.train --config configs/cifar10.py \
        --config.optim.learning_rate=0.2 --workdir runs/faster

The same command continues from the last checkpoint. TensorBoard shows a run by
`tensorboard --logdir WORKDIR`.
"""

import os

from nfnet_jax import cli
from nfnet_jax.config.kinds import Int


def main(argv: list[str]) -> None:
    """Trains as the flags say and prints the result."""
    flags = cli.parse(
        argv,
        __doc__,
        config="needed",
        workdir="directory of the run (default: runs/NAME)",
        coordinator="HOST:PORT of the first of several processes, or auto: as Slurm, a "
        "TPU pod, Kubernetes or Open MPI says (default: one process)",
        processes=Int(None, "number of processes, with HOST:PORT", "[1, inf)"),
        process=Int(None, "index of this process from 0, with HOST:PORT"),
    )
    config = flags.config
    workdir = flags.workdir or os.path.join("runs", config.name)
    # Processes join before anything asks JAX for its devices.
    from nfnet_jax.training.distributed import connect

    cli.prepare_jax()
    connect(flags.coordinator, flags.processes, flags.process)
    from nfnet_jax.training.loop import train
    from nfnet_jax.training.trained import has_checkpoint, load_weights

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


if __name__ == "__main__":
    cli.run(main)
