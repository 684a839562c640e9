"""How XLA is to compile a train step."""

import jax
from ml_collections import ConfigDict


def compiler_options(config: ConfigDict) -> dict[str, str] | None:
    """What XLA is to do otherwise in a train step.

    On CPUs it drops the barriers between a value and its recomputation, then merges the
    two, and `train.remat` would save nothing outside of loops.
    """
    if config.train.remat == "block" and jax.default_backend() == "cpu":
        return {"xla_disable_hlo_passes": "cse_barrier_expander"}
    return None
