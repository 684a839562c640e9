"""Floating-point operations of a run."""

import dataclasses

from ml_collections import ConfigDict

from nfnet_jax.models.statistics import multiply_adds, training_multiply_adds
from nfnet_jax.optim.factory import frozen_mask
from nfnet_jax.training.setup import Run
from nfnet_jax.training.timeline import differentiated_examples


@dataclasses.dataclass(frozen=True)
class Work:
    """Of convolutions and matrix products, two operations a multiply-add.

    `image`: multiply-adds of one image forward. `small`, `full`: operations of an
    update, forward and backward, the first `small_steps` on images of
    `train.small_size`.
    """

    image: int
    small: int
    full: int
    small_steps: int

    def between(self, start: int, end: int) -> int:
        """Operations of the updates after the first `start`, until there are `end`."""
        small = min(end, self.small_steps) - min(start, self.small_steps)
        return small * self.small + (end - start - small) * self.full


def count_work(config: ConfigDict, run: Run) -> Work:
    """Traces the network of `run`, but computes nothing."""
    frozen = frozen_mask(config.optim, run.state.params)
    height, width, channels = run.facts.image_shape
    small = config.train.small_size

    def update(shape: tuple[int, int, int]) -> int:
        macs = training_multiply_adds(run.model, shape, frozen)
        return 2 * macs * differentiated_examples(config)

    return Work(
        image=multiply_adds(run.model, run.facts.image_shape),
        small=update((small, small, channels)) if run.plan.small_steps else 0,
        full=update((height, width, channels)),
        small_steps=run.plan.small_steps,
    )
