"""Muon for convolution kernels: orthogonal updates, in proportion to the weights."""

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from nfnet_jax.optim.tree import Params

FILTERS = MuonDimensionNumbers(reduction_axis=(-4, -3, -2), output_axis=-1)
"""A kernel [..., KH, KW, C, O] is a matrix [KH · KW · C, O]; axes before it count
layers, each with a matrix of its own."""


def muon(
    schedule: optax.Schedule, adam_share: float, *, momentum: float, nesterov: bool
) -> optax.GradientTransformation:
    """Muon for the convolution kernels and Adam for all other parameters.

    A kernel W with momentum M of its gradients becomes W − η ‖W‖ U / ‖U‖, where U ≈
    (M Mᵀ)^(−1/2) M by five Newton-Schulz steps [Jordan 2024] and the norms are
    Frobenius norms. The rate η is thus the size of the change relative to the weights,
    which is what counts where weight standardization makes their scale arbitrary. Adam
    (β₁ = 0.9, β₂ = 0.99) has the rate `adam_share` · η.
    """
    kernels = optax.chain(
        scale_by_muon(
            beta=momentum,
            nesterov=nesterov,
            weight_dimension_numbers=lambda grads: jax.tree.map(
                lambda _: FILTERS, grads
            ),
        ),
        scale_to_weights(),
        optax.scale_by_learning_rate(schedule),
    )
    others = optax.adam(lambda step: adam_share * schedule(step), b1=0.9, b2=0.99)
    return optax.partition({True: kernels, False: others}, convolution_kernels)


def convolution_kernels(params: Params) -> Params:
    """True at the leaves `kernel` [..., KH, KW, C, O]."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: path[-1].key == "kernel" and leaf.ndim >= 4, params
    )


def scale_to_weights() -> optax.GradientTransformation:
    """U ← U · ‖W‖ / ‖U‖ for every kernel W [..., KH, KW, C, O]."""

    def update(updates, state, params):
        def scale(update, weights):
            ratio = _norm(weights) / jnp.maximum(_norm(update), 1e-12)
            return update * ratio

        return jax.tree.map(scale, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _norm(kernel: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(kernel), (-4, -3, -2, -1), keepdims=True))
