"""The network this project grew from, done right, on CIFAR-10.

    python -m nfnet_jax.train --config configs/cifar10_original.py

With `--config.train.epochs=10` it reaches 88.5 % test accuracy, where the original had
75.0 % after 10 epochs and 89.3 % after 200; measured with an earlier state of the code,
and the 200 epochs not at all. See experiments/original_network.
"""

from nfnet_jax.config import base_config


def get_config():
    config = base_config()
    config.name = "cifar10_original"
    config.model.name = "nf_bottleneck_5_16"
    config.data.name = "tfds:cifar10"
    config.data.batch_size = 64
    config.data.augment.crop_padding = 4
    config.data.augment.flip = True
    config.optim.learning_rate = 0.1
    config.optim.nesterov = False
    config.optim.weight_decay = 2e-4
    config.train.epochs = 200.0
    config.checkpoint.every_epochs = 1.0
    return config
