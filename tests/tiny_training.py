"""A small network and 48 images of noise to train it on."""

import numpy as np
from tiny_run import tiny_config

from nfnet_jax.data.dataset import Dataset, Split
from nfnet_jax.training.data_spec import DataSpec
from nfnet_jax.training.experiment import Experiment

RNG = np.random.RandomState(0)
DATA = Split(
    images=RNG.randint(0, 256, (48, 8, 8, 1)).astype("uint8"),
    labels=RNG.randint(0, 10, 48).astype("int32"),
)
SPEC = DataSpec.of_shape((8, 8, 1), 10)


def experiment(data=DATA, spec=SPEC, **changes) -> Experiment:
    """A tiny run with `changes` on `data`."""
    dataset = Dataset("noise", data, data, spec.class_names)
    return Experiment(tiny_config(**changes), dataset, given_spec=spec)


def setup(**changes):
    """The experiment, its step on the batch 0 of `DATA`, and its first state."""
    run = experiment(**changes)
    host_batch = next(run.train_batches.iterate(0))

    def step(state):
        return run.train_step(state, host_batch)

    return run, step, run.state
