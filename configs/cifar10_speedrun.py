"""CIFAR-10 without normalization, for few FLOPs: whitening, Muon, small images first.

    python -m nfnet_jax.train --config configs/cifar10_speedrun.py:0.08

The argument is the training cost in PFLOP. Test accuracy, in brackets with averaged
parameters and mirrored test images: 0.08: 90.2 % (90.7 %), 26 minutes of two cores of
an AMD EPYC with AVX2; 0.03: 88.4 % (89.1 %); 0.01: 85.4 % (86.3 %); 0.2: 91.8 %
(92.4 %), 53 minutes. One run each, that of 0.08 with Muon's momentum corrected for
bias, as it is no longer. See experiments/cifar10_speedrun.
"""

from nfnet_jax.config import base_config, choose

BUDGETS = {
    "0.005": {"model.name": "nf_air_32", "train.epochs": 1.5},
    "0.01": {"model.name": "nf_air_24", "train.epochs": 5.3},
    "0.03": {"model.name": "nf_air_32", "train.epochs": 9.3},
    "0.08": {"model.name": "nf_air_64", "train.epochs": 6.4},
    "0.2": {"model.name": "nf_air_64", "train.epochs": 16.1},
}
"""Keys that differ between the budgets, in PFLOP."""


def get_config(budget: str = "0.08"):
    config = base_config()
    config.name = "cifar10_speedrun"
    config.data.name = "tfds:cifar10"
    config.data.batch_size = 250
    config.data.augment.crop_padding = 2
    config.data.augment.flip = True
    config.data.augment.alternate_flip = True
    config.optim.name = "muon"
    config.optim.learning_rate = 0.05
    config.optim.muon.adam_share = 0.02
    config.optim.momentum = 0.9
    config.optim.ema_decay = 0.9
    config.optim.weight_decay = 0.0
    config.optim.agc.clipping = 0.0
    config.optim.freeze = ("stem/kernel",)
    config.optim.schedule.name = "linear"
    config.optim.schedule.warmup_epochs = 0.0
    config.train.small_size = 24
    config.train.small_share = 0.6
    config.train.label_smoothing = 0.2
    config.eval.every_epochs = 0.0
    config.checkpoint.every_epochs = 1.0
    config.update_from_flattened_dict(choose(BUDGETS, budget))
    return config
