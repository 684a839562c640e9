"""Exponential moving average of the parameters."""

import jax
import jax.numpy as jnp

from nfnet_jax.optim.tree import Params


def update_ema(ema: Params, params: Params, step: jax.Array, decay: float) -> Params:
    """ema ← d · ema + (1 − d) · params with d = min(decay, (1 + t) / (10 + t)).

    `step` is t, a scalar, the number of updates before this one; the warm-up makes
    short runs forget their initialization [HP, appendix A]. decay = 0 copies the
    parameters.
    """
    own = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: p + own * (e - p), ema, params)
