"""Learning rate, and average of the parameters, as functions of the step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from nfnet_jax.optim.tree import Params

DECAYS: dict[str, Callable[[Any], Any]] = {
    "cosine": lambda progress: (1 + jnp.cos(jnp.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}
"""Factor of the peak rate as a function of the progress in [0, 1] after warm-up."""
SCHEDULES = (*DECAYS, "step")


def warmup_then(
    name: str,
    peak: float,
    warmup_steps: int,
    total_steps: int,
    final_fraction: float = 0.0,
    boundaries: Sequence[float] = (),
    factor: float = 1.0,
) -> optax.Schedule:
    """Linear warm-up to `peak` over `warmup_steps`, then a decay to the last step.

    With p in [0, 1] the share of the steps after warm-up that have passed, the rate is
    peak · (f + (1 − f) · g), f = `final_fraction`, g = (1 + cos πp) / 2 for "cosine",
    1 − p for "linear" (with a long warm-up: one cycle), 1 for "constant". For "step", g
    is multiplied by `factor` at each of `boundaries`, shares of `total_steps`. Step t
    of the warm-up has (t + 1) / (warmup_steps + 1) of the peak, so that no step is
    spent at rate 0.
    """
    ends = jnp.asarray([round(share * total_steps) for share in boundaries])

    def schedule(step):
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        progress = jnp.clip(progress, 0.0, 1.0)
        if name == "step":
            decay: Any = factor ** jnp.sum(step >= ends).astype(jnp.float32)
        else:
            decay = DECAYS[name](progress)
        warmup = jnp.minimum(1.0, (step + 1) / (warmup_steps + 1))
        return peak * warmup * (final_fraction + (1 - final_fraction) * decay)

    return schedule


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
