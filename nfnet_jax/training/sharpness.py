"""SAM around the gradients of a step."""

from collections.abc import Callable

import jax
import optax
from ml_collections import ConfigDict

from nfnet_jax.optim.sam import ascent_rows, normalized_ascent
from nfnet_jax.training.sharding import split_batch


def sharpness_aware(gradients: Callable, sam: ConfigDict) -> Callable:
    """`gradients(params, batch_stats, images, labels, key)`, taken after the ascent.

    The ascent step of `optim.sam` is computed from `sam.fraction` of the batch, with
    the same key: where that is all of it, dropout and stochastic depth fall alike in
    both passes. Gradients and metrics are those of the whole batch after the ascent,
    batch statistics those of the parameters themselves.
    """
    ascent = normalized_ascent(sam.rho)

    def wrapped(params, batch_stats, images, labels, key):
        rows = ascent_rows(len(images), sam.fraction)
        part = jax.tree.map(lambda x: split_batch(x[rows])[0], (images, labels))
        (grads, _), new_stats = gradients(params, batch_stats, *part, key)
        rise, _ = ascent.update(grads, optax.EmptyState())
        above = optax.apply_updates(params, rise)
        result, _ = gradients(above, batch_stats, images, labels, key)
        return result, new_stats

    return wrapped
