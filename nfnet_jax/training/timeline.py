"""Numbers of a run that follow from the config and the size of the data set."""

import dataclasses
import math

from ml_collections import ConfigDict

from nfnet_jax.optim.sam import ascent_size
from nfnet_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Length, warm-up and intervals of one run, counted in updates.

    `peak_rate` is the largest learning rate. The first `small_steps` updates see images
    of `train.small_size`. `batches` is the largest number of batches that the run may
    draw, those that a rewind leaves out included.
    """

    peak_rate: float
    steps: int
    batches: int
    small_steps: int
    steps_per_epoch: float
    warmup_steps: int
    eval_every: int
    checkpoint_every: int

    def evaluations_after(self, step: int) -> int:
        """Number of evaluations that follow update `step`, the final one included."""
        return -(-self.steps // self.eval_every) - step // self.eval_every


def make_timeline(config: ConfigDict, train_examples: int, devices: int) -> Timeline:
    """Returns the timeline of `config` for a training split of `train_examples`.

    Epochs follow each other without a gap: they need not be whole numbers of batches.

    Raises:
      UserError: a batch that the data, the microbatches or the devices do not fit.
    """
    batch, accumulate = config.data.batch_size, config.optim.accumulate
    sam = config.optim.sam
    parts = accumulate * devices
    if batch > train_examples:
        raise UserError(
            f"data.batch_size is {batch}, expected at most {train_examples}, the size "
            f"of the training split of {config.data.name}"
            f"{_batch_hint(config, train_examples, parts)}"
        )
    if batch % parts:
        raise UserError(
            f"data.batch_size is {batch}, expected a multiple of {parts}: {accumulate} "
            f"microbatches (optim.accumulate) on {devices} devices"
            f"{_batch_hint(config, min(train_examples, batch + parts - 1), parts)}"
        )
    ascent = ascent_size(batch, sam.fraction)
    if sam.rho and ascent % parts:
        valid = max(1, round(ascent / parts)) * parts
        raise UserError(
            f"optim.sam.fraction is {sam.fraction}, {ascent} of {batch} examples, "
            f"expected a multiple of {parts} (optim.accumulate on all devices) such as "
            f"{valid}; did you mean {valid / batch:.6g}?"
        )
    steps_per_epoch = train_examples / batch
    steps = config.train.steps or math.ceil(config.train.epochs * steps_per_epoch)
    warmup = min(
        round(config.optim.schedule.warmup_epochs * steps_per_epoch), steps // 2
    )

    def every(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch)) if epochs else steps

    return Timeline(
        peak_rate=peak_rate(config),
        steps=steps,
        batches=2 * steps if config.train.on_nan == "rewind" else steps,
        small_steps=round(config.train.small_share * steps)
        if config.train.small_size
        else 0,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=warmup,
        eval_every=every(config.eval.every_epochs),
        checkpoint_every=every(config.checkpoint.every_epochs),
    )


def _batch_hint(config: ConfigDict, most: int, parts: int) -> str:
    """Largest batch up to `most` that divides into `parts`, as a flag."""
    sam = config.optim.sam
    for batch in range(most // parts * parts, 0, -parts):
        if not sam.rho or ascent_size(batch, sam.fraction) % parts == 0:
            return f"; set --config.data.batch_size={batch}"
    return f", which do not divide into {parts} parts (optim.accumulate on all devices)"


def peak_rate(config: ConfigDict) -> float:
    """Largest learning rate: learning_rate · batch_size / base_batch_size."""
    batch = config.data.batch_size
    base = config.optim.base_batch_size or batch
    return config.optim.learning_rate * (batch / base)


def differentiated_examples(config: ConfigDict) -> int:
    """Number of examples differentiated in one update, SAM's ascent included."""
    batch, sam = config.data.batch_size, config.optim.sam
    return batch + (ascent_size(batch, sam.fraction) if sam.rho else 0)
