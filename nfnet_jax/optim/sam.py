"""Sharpness-aware minimization, SAM [Foret et al. 2020, arXiv 2010.01412].

The gradient that updates W is taken at the point of the ascent step, W + ρ g / ‖g‖,
with g the gradient at W of a part of the batch [HP].
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nfnet_jax.ops.precision import at_least_float32
from nfnet_jax.optim.tree import Params


def sam_value_and_grad(
    loss: Callable[..., Any], rho: float, *, has_aux: bool = False
) -> Callable[..., Any]:
    """As `jax.value_and_grad(loss, has_aux=has_aux)`, at W + ρ g / ‖g‖ instead of at W.

    `loss(params, *arguments, **options)` is any differentiable scalar, with auxiliary
    output if `has_aux`; g is its gradient at W for the same arguments. The gradients go
    into any optimizer. The value is that after the ascent. Takes twice the computation.
    """
    ascent = jax.grad(loss, has_aux=has_aux)
    descent = jax.value_and_grad(loss, has_aux=has_aux)

    def value_and_grad(params: Params, /, *arguments: Any, **options: Any) -> Any:
        grads = ascent(params, *arguments, **options)
        grads = grads[0] if has_aux else grads
        return descent(ascend(params, grads, rho), *arguments, **options)

    return value_and_grad


def ascend(params: Params, grads: Params, rho: float) -> Params:
    """W + ρ g / ‖g‖ with one norm over all parameters; W where the gradient is 0."""
    wide = jax.tree.map(lambda g: g.astype(at_least_float32(g.dtype)), grads)
    norm = optax.tree.norm(wide)
    scale = jnp.where(norm > 0, rho / jnp.where(norm > 0, norm, 1.0), 0.0)
    steps = jax.tree.map(
        lambda g, w: (scale.astype(w.dtype) * w).astype(g.dtype), grads, wide
    )
    return optax.apply_updates(params, steps)


def ascent_size(batch_size: int, fraction: float) -> int:
    """How many examples of a batch the ascent step is computed from."""
    return max(1, round(batch_size * fraction))


def ascent_rows(batch_size: int, fraction: float) -> np.ndarray:
    """Which: int [n], evenly spread, so that halves of the batch that are mixed in
    different ways, and the devices, have equal shares."""
    size = ascent_size(batch_size, fraction)
    return np.arange(size) * batch_size // size
