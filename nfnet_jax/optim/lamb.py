"""LAMB [You et al. 2019, arXiv 1904.00962] for parameters in stacks of layers."""

import optax

from nfnet_jax.optim.tree import Params, map_layers, require_params


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """u ← u · ‖W‖ / ‖u‖ for each layer; unchanged where either norm is 0.

    As `optax.scale_by_trust_ratio`, but leaves under `blocks` are many layers.
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
    """W ← W − rate · (‖W‖ / ‖u‖) · u with u = Adam's direction + weight_decay · W.

    `learning_rate` gives a scalar for each step, `decayed` has a bool for each
    parameter. Where it is False (biases and gains), u is neither decayed nor rescaled:
    a gain that starts at 0 would otherwise only grow by a factor of 1 + rate a step.
    """
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        optax.add_decayed_weights(weight_decay, decayed),
        optax.masked(scale_by_layer_trust_ratio(), decayed),
        optax.scale_by_learning_rate(learning_rate),
    )
