"""Exponential moving average of the parameters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from nfnet_jax.optim.tree import Params


def update_ema(
    ema: Params, params: Params, step: Int[Array, ""], decay: float
) -> Params:
    """Average ema ← d · ema + (1 − d) · params with d = min(decay, (1 + t) / (10 + t)).

    `step` is t, the number of updates before this one; the warm-up makes short runs
    forget their initialization (Brock, De, Smith, Simonyan 2021, arXiv 2102.06171,
    appendix A). decay = 0 copies the parameters.
    """
    own = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: p + own * (e - p), ema, params)
