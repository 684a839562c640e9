"""Initial weights, as functions that a network can be pickled with."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def fan_in_normal(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32
) -> jax.Array:
    """Normal weights of variance 1 / fan-in, for a kernel [..., C / groups, O]."""
    return nn.initializers.variance_scaling(1.0, "fan_in", "normal")(key, shape, dtype)


def normal(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, *, std: float
) -> jax.Array:
    """Normal weights of standard deviation `std`, of any shape."""
    return nn.initializers.normal(std)(key, shape, dtype)
