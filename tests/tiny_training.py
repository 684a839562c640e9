"""A small network and 48 images of noise to train it on."""

import numpy as np

from nfnet_jax.config import base_config, model_overrides
from nfnet_jax.data.augment.mixing import drawn_per_example
from nfnet_jax.data.dataset import Split
from nfnet_jax.data.loading.in_memory import training_batches
from nfnet_jax.models.registry import create_model
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.training.data_spec import DataFacts
from nfnet_jax.training.parallel import device_mesh
from nfnet_jax.training.state import init_state, init_variables
from nfnet_jax.training.step import make_train_step

RNG = np.random.RandomState(0)
DATA = Split(
    images=RNG.randint(0, 256, (48, 8, 8, 1)).astype("uint8"),
    labels=RNG.randint(0, 10, 48).astype("int32"),
)
FACTS = DataFacts((0.5,), (0.25,), tuple("0123456789"), (8, 8, 1))


def setup(**changes):
    """Config, model, train step on `DATA` and first state of the base config with
    `changes`."""
    config = base_config()
    config.data.batch_size = 16
    config.model.name = "nf_wrn_10_1"
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    model = create_model(config.model.name, 10, **model_overrides(config))
    params, stats = init_variables(model, 0, (8, 8, 1))
    optimizer = build_optimizer(config.optim, params, lambda step: 0.1)
    batches = training_batches(
        DATA,
        config.data,
        device_mesh(),
        seed=config.seed,
        per_example=drawn_per_example(config.train),
    )
    train_step = make_train_step(config, model, optimizer, batches, FACTS)
    fed = next(batches.iterate(0))

    def step(state):
        return train_step(state, fed)

    return config, model, step, init_state(params, stats, optimizer)
