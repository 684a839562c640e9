"""NF-WRN-16-2 on CIFAR-10, to the accuracy that 40 minutes of 2 CPU cores buy.

    python -m nfnet_jax.train --config configs/cifar10_cpu.py

Reaches 89.6 % test accuracy in 10 epochs, 0.30 PFLOP (two cores of an AMD EPYC with
AVX-512: 55 minutes beside other jobs), measured with an earlier state of the code. See
experiments/cifar10_cpu.
"""

from nfnet_jax.config import base_config


def get_config():
    config = base_config()
    config.name = "cifar10_cpu"
    config.model.name = "nf_wrn_16_2"
    config.data.name = "tfds:cifar10"
    config.data.augment.crop_padding = 4
    config.data.augment.flip = True
    config.optim.learning_rate = 0.3
    config.train.epochs = 10.0
    config.train.label_smoothing = 0.1
    config.eval.every_epochs = 2.0
    config.checkpoint.every_epochs = 2.0
    return config
