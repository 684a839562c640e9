"""Initial weights, as functions that a network can be pickled with."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Shape = Sequence[int]


def fan_in_normal(
    key: Key[Array, ""], shape: Shape, dtype: Any = jnp.float32
) -> Float[Array, "... C/groups O"]:
    """Normal weights of variance 1 / fan-in."""
    return nn.initializers.variance_scaling(1.0, "fan_in", "normal")(key, shape, dtype)


def normal(
    key: Key[Array, ""], shape: Shape, dtype: Any = jnp.float32, *, std: float
) -> Float[Array, "..."]:
    """Normal weights of standard deviation `std`."""
    return nn.initializers.normal(std)(key, shape, dtype)
