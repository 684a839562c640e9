"""NF-WRN-10-1 on scikit-learn's handwritten digits, to see that everything works.

    python -m nfnet_jax.train --config configs/digits.py

Reaches 99.4 % test accuracy in 30 epochs, 17 s (two cores of an AMD EPYC with AVX-512,
compilation included).
"""

from nfnet_jax.config import base_config


def get_config():
    config = base_config()
    config.name = "digits"
    config.model.name = "nf_wrn_10_1"
    config.data.name = "digits"
    config.data.batch_size = 64
    config.data.augment.crop_padding = 1
    config.train.epochs = 30.0
    config.train.label_smoothing = 0.1
    config.eval.every_epochs = 5.0
    config.log.every_steps = 100
    return config
