"""The config of an experiment: `python -m nfnet_jax.config` prints all of its keys.

    config = load("configs/digits.py", {"optim.learning_rate": 0.1})

A config file sets what differs from the base and nothing else. Values that follow from
other values (steps from epochs, the peak rate from the batch, ...) are derived when a
run is planned, after all overrides; a config file sets what follows from its argument,
as `configs/imagenet_nfnet.py:f3` does, as plain numbers.
"""

from nfnet_jax.config.base import (
    base_config,
    check_config,
    check_key,
    from_json,
    leaves,
    model_overrides,
    to_json,
)
from nfnet_jax.config.files import load
from nfnet_jax.config.keys import KEYS
from nfnet_jax.config.recipes import choose

__all__ = [
    "KEYS",
    "base_config",
    "check_config",
    "check_key",
    "choose",
    "from_json",
    "leaves",
    "load",
    "model_overrides",
    "to_json",
]
