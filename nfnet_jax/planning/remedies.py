"""Flags that make a run need less memory on each device."""

import math

from ml_collections import ConfigDict

from nfnet_jax.planning.programs import StepPlan
from nfnet_jax.planning.target import GPU_SHARE, Target

MOST_GPU_SHARE = 0.95
"""Part of a GPU's memory that JAX can be given."""

GIVEN_UP = 2.0
"""What a step may need, as a multiple of what its compiler knows of when it gives up:
a little more than seen (1.3 for an NF-WRN-10-1, 1.7 for an NFNet-F0)."""


def remedies(
    config: ConfigDict, target: Target, devices: int, step: StepPlan, memory: float
) -> list[str]:
    """Changes that may make a train step fit into `memory` bytes, cheapest first.

    Flags that are on already, or that cannot help, are left out.
    """
    found = []
    if target.is_gpu and step.needed <= memory * MOST_GPU_SHARE / GPU_SHARE:
        found.append(f"XLA_PYTHON_CLIENT_MEM_FRACTION={MOST_GPU_SHARE}")
    if config.train.dtype == "float32":
        found.append("--config.train.dtype=bfloat16")
    if config.train.remat == "none":
        found.append("--config.train.remat=block")
    batch, accumulate = config.data.batch_size, config.optim.accumulate
    parts = _parts(step, memory)
    most = batch // (devices * accumulate)
    factor = next((n for n in range(parts, most + 1) if most % n == 0), None)
    exact = batch % (devices * accumulate) == 0
    if step.arguments < memory and factor and factor > 1 and exact:
        found.append(f"--config.optim.accumulate={accumulate * factor}")
    if devices > 1 and not config.parallel.fsdp:
        found.append("--config.parallel.fsdp=True")
    unit = devices * accumulate
    smaller = batch // parts // unit * unit
    if step.arguments < memory and 0 < smaller < batch:
        found.append(f"--config.data.batch_size={smaller}")
    return found or [f"more devices than {devices}"]


def _parts(step: StepPlan, memory: float) -> int:
    """Power of two that a batch is divided by so that what depends on it may fit."""
    room, working = memory - step.arguments, step.needed - step.arguments
    if room <= 0:
        return 2
    if step.temporary is None:
        working *= GIVEN_UP
    return max(2, 2 ** math.ceil(math.log2(working / room)))
