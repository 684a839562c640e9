"""When to save."""

import time

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from nfnet_jax.training.timeline import Timeline


class SaveTimes:
    """After which steps a checkpoint is due, by `config.checkpoint`.

    Minutes are counted by the monotonic clock, which nobody sets.
    """

    def __init__(self, config: ConfigDict, plan: Timeline):
        self._every = (plan.checkpoint_every, config.checkpoint.every_steps)
        self._minutes = config.checkpoint.every_minutes
        self._look_every = 1 if jax.process_count() == 1 else config.log.every_steps
        self._since = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether to save after this step; the same on all processes."""
        by_step = any(every and step % every == 0 for every in self._every)
        return by_step or self._minutes_are_over(step)

    def saved(self) -> None:
        """Minutes count from here on."""
        self._since = time.monotonic()

    def _minutes_are_over(self, step: int) -> bool:
        if not self._minutes or step % self._look_every:
            return False
        over = time.monotonic() - self._since >= 60 * self._minutes
        if jax.process_count() > 1:
            over = bool(multihost_utils.broadcast_one_to_all(np.bool_(over)))
        return over
