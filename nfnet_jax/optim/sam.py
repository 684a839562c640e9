"""Sharpness-aware minimization, SAM (Foret, Kleiner, Mobahi, Neyshabur 2020,
"Sharpness-aware minimization for efficiently improving generalization", arXiv
2010.01412).

The gradient that updates W is taken at W + ρ g / ‖g‖, with g the gradient at W. As in
Brock et al. 2021b, "High-performance large-scale image recognition without
normalization", arXiv 2102.06171, g may be that of a part of the batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int

from nfnet_jax.ops.precision import at_least_float32
from nfnet_jax.optim.tree import Params


def sam_value_and_grad(
    loss: Callable[..., Any], rho: float, *, has_aux: bool = False
) -> Callable[..., Any]:
    """`jax.value_and_grad` of `loss`, taken at W + ρ g / ‖g‖ instead of W.

    `loss(params, *arguments, **options)` is any differentiable scalar, with auxiliary
    output if `has_aux`; g is its gradient at W for the same arguments. The gradients go
    into any optimizer. The value is that after the ascent. Takes twice the computation.
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=has_aux)

    def at_ascent(params: Params, /, *arguments: Any, **options: Any) -> Any:
        def differentiate(params, *arguments):
            return value_and_grad(params, *arguments, **options)

        twice = arguments, arguments
        return ascend_and_differentiate(differentiate, rho, params, *twice)[1]

    return at_ascent


def ascend_and_differentiate(
    value_and_grad: Callable[..., tuple[Any, Params]],
    rho: float,
    params: Params,
    ascent: tuple[Any, ...],
    descent: tuple[Any, ...],
) -> tuple[tuple[Any, Params], tuple[Any, Params]]:
    """Returns both (value, gradient) of a SAM step: at W, and at W + ρ g / ‖g‖.

    `value_and_grad(params, *arguments)` is called with the arguments `ascent` for g,
    then with `descent`.
    """
    first = value_and_grad(params, *ascent)
    return first, value_and_grad(ascend(params, first[1], rho), *descent)


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
    """Number of examples of a batch that the ascent step is computed from."""
    return max(1, round(batch_size * fraction))


def ascent_rows(batch_size: int, fraction: float) -> Int[np.ndarray, " n"]:
    """Rows of the batch for the ascent step, int [n], evenly spread.

    Halves of the batch that are mixed in different ways, and the devices, have equal
    shares.
    """
    size = ascent_size(batch_size, fraction)
    return np.arange(size) * batch_size // size
