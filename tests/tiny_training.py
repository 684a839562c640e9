"""A small network and 48 images of noise to train it on."""

import jax.numpy as jnp
import numpy as np

from nfnet_jax.config import base_config, model_overrides
from nfnet_jax.models.registry import create_model
from nfnet_jax.optim.build import build_optimizer
from nfnet_jax.training.sharding import DeviceData
from nfnet_jax.training.state import init_state, init_variables
from nfnet_jax.training.step import make_train_step

RNG = np.random.RandomState(0)
DATA = DeviceData(
    images=jnp.asarray(RNG.randint(0, 256, (48, 8, 8, 1)), "uint8"),
    labels=jnp.asarray(RNG.randint(0, 10, 48), "int32"),
    mean=jnp.full(1, 0.5),
    std=jnp.full(1, 0.25),
)


def setup(**changes):
    """Config, model, train step and first state of the base config with `changes`."""
    config = base_config()
    config.data.batch_size = 16
    config.model.name = "nf_wrn_10_1"
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    model = create_model(config.model.name, 10, **model_overrides(config))
    params, stats = init_variables(model, 0, (8, 8, 1))
    optimizer = build_optimizer(config.optim, params, lambda step: 0.1)
    step = make_train_step(config, model, optimizer)
    return config, model, step, init_state(params, stats, optimizer)
