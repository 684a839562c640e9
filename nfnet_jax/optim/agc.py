"""Adaptive gradient clipping (AGC).

Brock, De, Smith, Simonyan 2021, "High-performance large-scale image recognition without
normalization" (arXiv 2102.06171), section 4.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from nfnet_jax.optim.tree import (
    STACKED,
    Params,
    layered,
    map_layers,
    matches,
    require_params,
)
from nfnet_jax.utils.errors import UserError

Axis = int | tuple[int, ...] | None
Leaf = Float[Array, "..."]


def unit_norm(x: Leaf, axis: Axis = None) -> Leaf:
    """Euclidean norm of every unit of one parameter, float32, with kept axes.

    A unit is an output channel of a kernel [..., in, out], or a whole vector or scalar;
    with `axis` the scalars along these axes.
    """
    x = x.astype(jnp.float32)
    if axis is None and x.ndim > 1:
        axis = tuple(range(x.ndim - 1))
    return jnp.sqrt(jnp.sum(jnp.square(x), axis, keepdims=True))


def largest_norm(param: Leaf, clipping: float, eps: float, axis: Axis = None) -> Leaf:
    """Largest gradient that AGC admits, λ · max(‖W_i‖, ε), for each unit i."""
    return clipping * jnp.maximum(unit_norm(param, axis), eps)


@functools.partial(jax.jit, static_argnames="axis")
def clip_units(
    grad: Leaf, param: Leaf, clipping: float, eps: float, axis: Axis = None
) -> Leaf:
    """Clips each unit i: G_i ← G_i · min(1, λ · max(‖W_i‖, ε) / max(‖G_i‖, 1e-6))."""
    largest, norm = largest_norm(param, clipping, eps, axis), unit_norm(grad, axis)
    scale = jnp.where(norm > largest, largest / jnp.maximum(norm, 1e-6), 1.0)
    return (grad * scale).astype(grad.dtype)


def adaptive_gradient_clipping(
    clipping: float,
    eps: float = 1e-3,
    axis: Axis = None,
    *,
    exclude: str | Sequence[str] = (),
    stacked: str = STACKED,
) -> optax.GradientTransformation:
    """Clips each unit's gradient to `clipping` (λ) times the norm of its weights.

    G_i ← G_i · min(1, λ · max(‖W_i‖, `eps`) / ‖G_i‖) for the units i: output channels
    of kernels [..., in, out], whole vectors and scalars, or the scalars along `axis`,
    as in `optax.adaptive_grad_clip`.

    Leaves in whose path, such as "a/b/kernel", one of the regular expressions `exclude`
    is found are exempt. Exempt the classifier (section 4.1) and skip gains, which start
    at 0: clipped, they hardly leave it. Leaves in whose path `stacked` is found are
    stacks of layers [L, ...], as `nn.scan` makes them, and are clipped layer by layer;
    the default finds those of the networks of `create_model`.

    Raises, given parameters:
      UserError: an expression is malformed or found in no path, or all are exempt.
      ValueError: there are none.
    """

    axis = tuple(axis) if isinstance(axis, list) else axis

    def exempt(params):
        found = matches(params, exclude, "exclude")
        if any(jax.tree.leaves(found)) and all(jax.tree.leaves(found)):
            raise UserError(
                f"exclude: {exclude!r} exempts all parameters from adaptive gradient "
                "clipping, expected some to be clipped"
            )
        return found

    def init(params):
        exempt(params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        require_params(params)

        def clip(grad, param):
            return clip_units(grad, param, clipping, eps, axis)

        def clip_leaf(out, many, grad, param):
            if out:
                return grad
            return (jax.vmap(clip) if many else clip)(grad, param)

        masks = exempt(params), layered(params, stacked)
        return jax.tree.map(clip_leaf, *masks, updates, params), state

    return optax.GradientTransformation(init, update)


def clip_fraction(
    grads: Params, params: Params, mask: Params, clipping: float, eps: float
) -> Float[Array, ""]:
    """Share of the units at the leaves where `mask` is True that AGC clips.

    The share is float32, and 0 where no leaf is covered.
    """

    @jax.jit
    def is_clipped(grad, param):
        return unit_norm(grad) > largest_norm(param, clipping, eps)

    leaves = map(jax.tree.leaves, (map_layers(is_clipped, grads, params), mask))
    covered = [leaf for leaf, hit in zip(*leaves, strict=True) if hit]
    units = sum(leaf.size for leaf in covered)
    clipped = sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in covered)
    return jnp.asarray(clipped / max(1, units), jnp.float32)
