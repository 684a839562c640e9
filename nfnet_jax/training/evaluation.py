"""Accuracy and loss on a split."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nfnet_jax.data.augment import normalize
from nfnet_jax.data.batches import Batches
from nfnet_jax.models.network import Network
from nfnet_jax.optim.tree import Params
from nfnet_jax.training.data_spec import DataSpec
from nfnet_jax.training.parallel import gather, split_batch


def make_eval_step(
    model: Network, batches: Batches, data_spec: DataSpec, dtype: str = "float32"
) -> Callable[..., dict[str, jax.Array]]:
    """Compiles `step(variables, host_batch, number) -> sums` over an evaluation batch.

    Sums over the examples that there are: their number `examples`, `correct`, `loss`
    (cross entropy without smoothing). Images are of `dtype`.
    """
    moments = data_spec.moments

    @jax.jit
    def step(variables, host_batch, number):
        images, labels, _ = batches.materialize(host_batch, number)
        images = normalize(images, *moments)
        images, labels = split_batch(images.astype(dtype), labels)
        logits: Any = model.apply(gather(variables), images, train=False)
        real = labels >= 0
        loss = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.where(real, labels, 0)
        )
        return {
            "examples": jnp.sum(real),
            "correct": jnp.sum(logits.argmax(-1) == labels),
            "loss": jnp.sum(jnp.where(real, loss, 0.0)),
        }

    return step


def evaluate(
    eval_step: Callable, variables: Sequence[Params], batches: Batches
) -> list[dict[str, float]]:
    """Scores each of `variables` in one pass: `accuracy` in [0, 1], mean `loss`.

    `eval_step` is a `make_eval_step` of the same `batches`.
    """
    with contextlib.closing(batches.iterate(0)) as host_batches:
        sums = [
            [eval_step(v, host_batch, number) for v in variables]
            for number, host_batch in enumerate(host_batches)
        ]
    totals = jax.tree.map(lambda *parts: float(sum(parts)), *jax.device_get(sums))
    return [
        {
            "accuracy": total["correct"] / total["examples"],
            "loss": total["loss"] / total["examples"],
        }
        for total in totals
    ]
