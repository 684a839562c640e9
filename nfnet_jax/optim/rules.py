"""Update rules for parameters in stacks of layers: LAMB, and Muon for kernels."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from nfnet_jax.optim.tree import Params, layered, map_layers, path_name, require_params

Matrices = Float[Array, "*layers rows columns"]
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5
"""Coefficients a, b, c of each step, those of Jordan."""


def muon(
    schedule: optax.Schedule, adam_share: float, momentum: float, nesterov: bool
) -> optax.GradientTransformation:
    """Muon for convolution kernels, and Adam for all other parameters.

    A kernel W with momentum M of its gradients becomes W − η ‖W‖ U / ‖U‖, where U ≈
    M (Mᵀ M)^(−1/2) by five Newton-Schulz steps (Jordan 2024, "Muon: an optimizer for
    hidden layers in neural networks", kellerjordan.github.io/posts/muon) and the norms
    are Frobenius norms. The rate η is thus the size of the change relative to the
    weights, the right measure because weight standardization makes the scale of the
    weights arbitrary. Adam (β₁ = 0.9, β₂ = 0.99) has the rate `adam_share` · η.
    """
    kernels = optax.chain(
        optax.trace(momentum, nesterov),
        optax.stateless(lambda moments, params: jax.tree.map(_orthogonal, moments)),
        scale_to_weights(),
        optax.scale_by_learning_rate(schedule),
    )
    others = optax.adam(lambda step: adam_share * schedule(step), b1=0.9, b2=0.99)
    return optax.partition({True: kernels, False: others}, convolution_kernels)


def convolution_kernels(params: Params) -> Params:
    """Mask of the leaves `kernel` [KH, KW, C, O] and of stacks of such."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, many: (
            path_name(path[-1:]) == "kernel" and leaf.ndim - many >= 4
        ),
        params,
        layered(params),
    )


def _orthogonal(moment: jax.Array) -> jax.Array:
    """Orthogonalizes a kernel [..., KH, KW, C, O] as a matrix [KH · KW · C, O].

    Axes before it count layers, each with a matrix of its own.
    """
    matrix = moment.reshape(*moment.shape[:-4], -1, moment.shape[-1])
    return orthogonalize(matrix).reshape(moment.shape)


@jax.default_matmul_precision("float32")
def orthogonalize(matrix: Matrices) -> Matrices:
    """Newton-Schulz steps X ← a X + b X G + c X G², G = Xᵀ X, by `NEWTON_SCHULZ`.

    Starts from X = M / ‖M‖. Every X is M times a polynomial of the first G, and every G
    is such a polynomial. Only the first and the last product have the size of the rows,
    of which a 3x3 convolution has nine times as many as columns:

        Q = a + b G + c G²,  P ← P Q,  G ← Q G Q,  in the end X = M P / ‖M‖.

    In float32 on every platform: products in bfloat16 make the smallest eigenvalues of
    G negative, and singular values of an ill-conditioned M end at 5 instead of 1.2.
    """
    rows, columns = matrix.shape[-2:]
    if rows < columns:
        return orthogonalize(matrix.mT).mT
    norm = jnp.linalg.norm(matrix, axis=(-2, -1), keepdims=True)
    matrix = matrix / jnp.maximum(norm, 1e-12)
    gram = matrix.mT @ matrix
    identity = jnp.broadcast_to(jnp.eye(columns, dtype=matrix.dtype), gram.shape)
    product = identity
    for a, b, c in NEWTON_SCHULZ:
        step = a * identity + b * gram + c * (gram @ gram)
        product = product @ step
        gram = step @ gram @ step
    return matrix @ product


def scale_to_weights() -> optax.GradientTransformation:
    """Scales updates to the weights: U ← U · ‖W‖ / ‖U‖ for every kernel W."""

    def update(updates, state, params=None):
        require_params(params)

        def scale(update, weights):
            ratio = _norm(weights) / jnp.maximum(_norm(update), 1e-12)
            return update * ratio

        return jax.tree.map(scale, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _norm(kernel: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(kernel), (-4, -3, -2, -1), keepdims=True))


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """Trust ratio of LAMB: u ← u · ‖W‖ / ‖u‖; unchanged where either norm is 0.

    `optax.scale_by_trust_ratio`, applied to each layer of a stack.
    """
    leaf = optax.scale_by_trust_ratio()

    def update(updates, state, params=None):
        require_params(params)

        def scale(update, param):
            return leaf.update(update, state, param)[0]

        return map_layers(scale, updates, params), state

    return optax.GradientTransformation(leaf.init, update)


def lamb(
    learning_rate: optax.Schedule,
    *,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    decayed: Params,
) -> optax.GradientTransformation:
    """LAMB: W ← W − rate · (‖W‖ / ‖u‖) · u, u = Adam's direction + weight_decay · W.

    You et al. 2020, "Large batch optimization for deep learning: training BERT in 76
    minutes" (arXiv 1904.00962). `learning_rate` gives a scalar for each step, `decayed`
    has a bool for each parameter. Where it is False (biases and gains), u is neither
    decayed nor rescaled: a gain that starts at 0 would otherwise only grow by a factor
    of 1 + rate a step.
    """
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        optax.add_decayed_weights(weight_decay, decayed),
        optax.masked(scale_by_layer_trust_ratio(), decayed),
        optax.scale_by_learning_rate(learning_rate),
    )
