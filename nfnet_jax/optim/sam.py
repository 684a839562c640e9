"""Sharpness-aware minimization, SAM [Foret et al. 2020, arXiv 2010.01412].

The gradient that updates W is taken at the point of the ascent step, W + ρ g / ‖g‖,
with g the gradient at W of a part of the batch [HP].
"""

import jax.numpy as jnp
import numpy as np
import optax


def normalized_ascent(rho: float) -> optax.GradientTransformation:
    """g ← ρ · g / ‖g‖ with one norm over all parameters; 0 where the gradient is 0."""

    def update(updates, state, params=None):
        norm = optax.tree.norm(updates)
        scale = jnp.where(norm > 0, rho / jnp.where(norm > 0, norm, 1.0), 0.0)
        return optax.tree.scale(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def ascent_size(batch_size: int, fraction: float) -> int:
    """How many examples of a batch the ascent step is computed from."""
    return max(1, round(batch_size * fraction))


def ascent_rows(batch_size: int, fraction: float) -> np.ndarray:
    """Which: int [n], evenly spread, so that halves of the batch that are mixed in
    different ways, and the devices, have equal shares."""
    size = ascent_size(batch_size, fraction)
    return np.arange(size) * batch_size // size
