"""Adaptive gradient clipping [HP, section 4]."""

import jax
import jax.numpy as jnp
import optax

from nfnet_jax.optim.tree import STACKED, Params, map_layers


def unit_norm(x: jax.Array) -> jax.Array:
    """Euclidean norm of every unit of one parameter, float32, with kept axes.

    A unit is an output channel of a kernel [..., in, out], or a whole vector or scalar.
    """
    x = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1)) if x.ndim > 1 else None
    return jnp.sqrt(jnp.sum(jnp.square(x), axes, keepdims=True))


def largest_norm(param: jax.Array, clipping: float, eps: float) -> jax.Array:
    """λ · max(‖W_i‖, ε), what AGC lets the gradient of each unit i be.

    Float32, of the shape that `unit_norm` of `param` has.
    """
    return clipping * jnp.maximum(unit_norm(param), eps)


@jax.jit
def clip_units(
    grad: jax.Array, param: jax.Array, clipping: float, eps: float
) -> jax.Array:
    """G_i ← G_i · min(1, λ · max(‖W_i‖, ε) / max(‖G_i‖, 1e-6)) for each unit i.

    `grad` and `param` are of one shape, see `unit_norm`; so is the result, in the dtype
    of `grad`.
    """
    largest, norm = largest_norm(param, clipping, eps), unit_norm(grad)
    scale = jnp.where(norm > largest, largest / jnp.maximum(norm, 1e-6), 1.0)
    return (grad * scale).astype(grad.dtype)


def adaptive_gradient_clipping(
    clipping: float, eps: float = 1e-3, *, stacked: str = STACKED
) -> optax.GradientTransformation:
    """Clips each unit's gradient to `clipping` (λ) times the norm of its weights.

    G_i ← G_i · min(1, λ · max(‖W_i‖, `eps`) / ‖G_i‖) for the units i: output channels
    of kernels [..., in, out], whole vectors and scalars. Leaves in whose path, such as
    "a/b/kernel", the regular expression `stacked` is found are stacks of layers
    [L, ...], as `nn.scan` makes them, and are clipped layer by layer; the default finds
    those of the networks of `create_model`. Combine with `optax.masked` to exempt
    parameters; [HP] exempts the classifier.
    """

    def update(updates, state, params):
        def clip(grad, param):
            return clip_units(grad, param, clipping, eps)

        return map_layers(clip, updates, params, stacked=stacked), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def clip_fraction(
    grads: Params, params: Params, mask: Params, clipping: float, eps: float
) -> jax.Array:
    """Share of the units at the leaves where `mask` is True that AGC clips.

    A float32 scalar; 0 where no leaf is covered.
    """

    @jax.jit
    def is_clipped(grad, param):
        return unit_norm(grad) > largest_norm(param, clipping, eps)

    leaves = jax.tree.leaves(map_layers(is_clipped, grads, params))
    covered = [
        leaf for leaf, hit in zip(leaves, jax.tree.leaves(mask), strict=True) if hit
    ]
    units = sum(leaf.size for leaf in covered)
    clipped = sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in covered)
    return jnp.asarray(clipped / max(1, units), jnp.float32)
