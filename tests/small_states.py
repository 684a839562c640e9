"""Training states of a few numbers."""

import pathlib

import jax
import numpy as np

from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.state import TrainState


def make_state(step: int) -> TrainState:
    """State of a few numbers, another for every step."""
    random = np.random.RandomState(step)

    def tree():
        kernel = random.randn(3, 40).astype("float32")
        return {"a": {"kernel": kernel}, "bias": random.randn(7).astype("float32")}

    state = TrainState(
        step=np.int32(step),
        skipped=np.int32(3 * step),
        params=tree(),
        ema_params=tree(),
        batch_stats=tree(),
        opt_state=(tree(), np.int32(step)),
    )
    return jax.tree.map(jax.numpy.asarray, state)


def restore(workdir: pathlib.Path) -> TrainState:
    with Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore(make_state(0))


def check_is(state: TrainState, step: int) -> None:
    jax.tree.map(np.testing.assert_array_equal, state, make_state(step))
