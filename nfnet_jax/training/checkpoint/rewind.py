"""Back to the last checkpoint when a loss is not finite, and on with other batches."""

import sys

import jax
import numpy as np

from nfnet_jax.training.checkpoint.manager import Checkpoints
from nfnet_jax.training.logging.reporter import Diverged
from nfnet_jax.training.state import TrainState
from nfnet_jax.utils.errors import UserError

_MOST = 3


class Rewinds:
    """Counts how often a run went back to the same checkpoint."""

    def __init__(self, checkpoints: Checkpoints, steps: int):
        self._checkpoints, self._steps = checkpoints, steps
        self._step, self._count = -1, 0

    def back(self, divergence: Diverged, skipped: int, like: TrainState) -> TrainState:
        """The last checkpoint, to go on with the batch after the one that diverged.

        `skipped` are the batches that had been left out before it.

        Raises:
          UserError: that was tried three times from this checkpoint, or more batches
            would be left out than the run has steps.
        """
        state = self._checkpoints.restore(like)
        step = int(state.step)
        self._count = self._count + 1 if step == self._step else 1
        self._step = step
        skipped += divergence.step - step
        if self._count > _MOST or skipped > self._steps:
            raise UserError(
                f"{divergence}; rewound {self._count - 1} times to step {step} before"
            )
        sys.stderr.write(
            f"step {divergence.step}: loss or gradient are not finite; back to step "
            f"{step}, leaving out {divergence.step - step} batches\n"
        )
        moved = jax.device_put(np.int32(skipped), state.skipped.sharding)
        return state.replace(skipped=moved)
