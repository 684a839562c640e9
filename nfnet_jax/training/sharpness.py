"""SAM around the gradients of a step."""

from collections.abc import Callable

from ml_collections import ConfigDict

from nfnet_jax.optim.sam import ascend, ascent_rows
from nfnet_jax.training.parallel import BatchView


def sharpness_aware(gradients: Callable, sam: ConfigDict, view: BatchView) -> Callable:
    """`gradients(params, batch_stats, images, targets, positions)`, after the ascent.

    The ascent step of `optim.sam` is computed from `sam.fraction` of the batch; dropout
    and stochastic depth of an example fall alike in both passes. Gradients and metrics
    are those of the whole batch after the ascent, batch statistics those of the
    parameters themselves.
    """

    def wrapped(params, batch_stats, *batch):
        rows = ascent_rows(len(batch[0]), sam.fraction)
        chosen = view.shard(*(array[rows] for array in batch))
        (grads, _), new_stats = gradients(params, batch_stats, *chosen)
        above = ascend(params, grads, sam.rho)
        result, _ = gradients(above, batch_stats, *batch)
        return result, new_stats

    return wrapped
