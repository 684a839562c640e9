"""One update of a run: draw a batch, differentiate the loss, update the state.

    batch = draw_batch(host_batch, batch_index, ...)
    state, metrics = step(state, batch, ...)

`training.parallel` compiles the two into one function for all devices.
`make_eval_step` is the step of an evaluation.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32
from ml_collections import ConfigDict

from nfnet_jax.data.augment import augment_batch, normalize, shrink
from nfnet_jax.data.batches import Batch, Batches, run_keys
from nfnet_jax.models.network import Network
from nfnet_jax.optim.agc import clip_fraction
from nfnet_jax.optim.groups import ParameterGroups
from nfnet_jax.optim.sam import ascend_and_differentiate, ascent_rows
from nfnet_jax.optim.schedules import update_ema
from nfnet_jax.optim.tree import Params, gradient_ratios, keep_frozen
from nfnet_jax.training.data_spec import DataSpec
from nfnet_jax.training.parallel import BatchView, gather, on_rows, split_batch
from nfnet_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
"""Scalars of one batch, and the array `gradient_ratios`."""
MetricsAndStats = tuple[Metrics, Params]
"""Metrics of a batch, and the batch statistics after it."""


class TrainingBatch(NamedTuple):
    """Examples as the network sees them, in the dtype of training.

    `targets` are class probabilities before label smoothing; `example_ids`, counted
    from the start of training, key dropout and stochastic depth.
    """

    images: Float[Array, "N H W C"]
    targets: Float[Array, "N K"]
    example_ids: UInt32[Array, " N"]


def draw_batch(
    host_batch: Any,
    batch_index: jax.Array,
    *,
    config: ConfigDict,
    batches: Batches,
    data_spec: DataSpec,
    num_classes: int,
    view: BatchView,
    image_size: int | None = None,
) -> TrainingBatch:
    """Returns the augmented batch `batch_index` of a run, or the rows of it in `view`.

    `host_batch` comes from `batches.iterate`. `image_size`: side that the augmented
    images are resized to, None for that of the data. For use inside a jitted function.
    """
    examples = batches.materialize(host_batch, batch_index, view.local_rows)
    drawn = Batch(*view.shard(*examples))
    key = run_keys(config.seed).augment
    images, targets = augment_batch(
        drawn,
        key,
        config.data.augment,
        config.train,
        data_spec.moments,
        num_classes,
    )
    images = shrink(images, image_size) if image_size else images
    images, targets = view.shard(images.astype(config.train.dtype), targets)
    return TrainingBatch(images, targets, drawn.example_ids)


def loss(
    params: Params,
    batch_stats: Params,
    batch: TrainingBatch,
    *,
    model: Network,
    frozen: Params,
    dropout_key: jax.Array,
    label_smoothing: float,
) -> tuple[Float[Array, ""], MetricsAndStats]:
    """Mean cross entropy with smoothed labels; beside it metrics and statistics.

    `accuracy` of a mixed image is that for the class with the larger share. No gradient
    is computed where `frozen`, a tree like the parameters, is True.
    """
    params = keep_frozen(params, jax.lax.stop_gradient(params), frozen)
    logits, updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        batch.images,
        train=True,
        examples=batch.example_ids,
        rngs={"dropout": dropout_key},
        mutable=["batch_stats"],
    )
    targets = optax.smooth_labels(batch.targets, label_smoothing)
    value = optax.softmax_cross_entropy(logits, targets).mean()
    correct = logits.argmax(-1) == batch.targets.argmax(-1)
    metrics = {"loss": value, "accuracy": jnp.mean(correct)}
    return value, (metrics, updated.get("batch_stats", {}))


def gradients(
    objective: Callable,
    params: Params,
    batch_stats: Params,
    batch: TrainingBatch,
    microbatches: int = 1,
) -> tuple[MetricsAndStats, Params]:
    """Returns metrics and statistics, and mean gradients, from so many `microbatches`.

    `objective(params, batch_stats, batch)` is `loss` with its options.
    """
    value_and_grad = jax.value_and_grad(objective, has_aux=True)
    if microbatches == 1:
        (_, values), grads = value_and_grad(params, batch_stats, batch)
        return values, grads

    def add(carry, microbatch):
        total, stats = carry
        (_, (metrics, stats)), grads = value_and_grad(params, stats, microbatch)
        part = (metrics, grads)
        total = jax.tree.map(lambda t, p: t + p / microbatches, total, part)
        return (total, stats), None

    # Microbatch j has the examples j, j + m, j + 2m, ...: each stays on its device.
    parts = jax.tree.map(
        lambda array: array.reshape(-1, microbatches, *array.shape[1:]).swapaxes(0, 1),
        batch,
    )
    zeros = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}
    start = (zeros, jax.tree.map(jnp.zeros_like, params))
    ((metrics, grads), stats), _ = jax.lax.scan(add, (start, batch_stats), parts)
    return (metrics, stats), grads


def batch_gradients(
    objective: Callable,
    optim: ConfigDict,
    params: Params,
    batch_stats: Params,
    batch: TrainingBatch,
    view: BatchView,
) -> tuple[MetricsAndStats, Params]:
    """Returns `gradients` of the whole batch, from the rows in `view`.

    `optim` is `config.optim`. With SAM the ascent step is computed from `sam.fraction`
    of the batch; dropout and stochastic depth of an example fall alike in both passes.
    Gradients and metrics are those after the ascent, batch statistics those of the
    parameters themselves.
    """

    def averaged(params, batch_stats, batch):
        found = gradients(objective, params, batch_stats, batch, optim.accumulate)
        return view.average(found)

    if not optim.sam.rho:
        return averaged(params, batch_stats, batch)
    rows = ascent_rows(len(batch.images), optim.sam.fraction)
    part = TrainingBatch(*view.shard(*(array[rows] for array in batch)))
    at_params, at_ascent = ascend_and_differentiate(
        averaged, optim.sam.rho, params, (batch_stats, part), (batch_stats, batch)
    )
    (_, stats), _ = at_params
    (metrics, _), grads = at_ascent
    return (metrics, stats), grads


def update(
    state: TrainState,
    grads: Params,
    batch_stats: Params,
    *,
    optimizer: optax.GradientTransformation,
    frozen: Params,
    ema_decay: float,
) -> TrainState:
    """Returns the state after one update by `grads`, with the new `batch_stats`."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = update_ema(state.ema_params, params, state.step, ema_decay)
    # Frozen parameters keep every bit: adding an update of 0 would turn -0 into 0.
    return state.replace(
        step=state.step + 1,
        params=keep_frozen(params, state.params, frozen),
        ema_params=keep_frozen(ema, state.ema_params, frozen),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )


def step(
    state: TrainState,
    batch: TrainingBatch,
    batch_gradients: Callable,
    *,
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    groups: ParameterGroups,
) -> tuple[TrainState, Metrics]:
    """Returns the next state and the metrics of the batch.

    `batch_gradients` is the function of that name, on all devices. Metrics: `loss` (the
    objective, with label smoothing; with SAM, after its ascent), `accuracy`,
    `grad_norm` (before clipping) and, with AGC, `clip_fraction`; with
    `log.gradient_ratios`, `gradient_ratios` [layers].

    With `config.train.on_nan="skip"`, a batch whose loss or gradient is not finite
    leaves all but the step as it was; the metric `skipped` is 1 for it, 0 for others.
    """
    (metrics, batch_stats), grads = batch_gradients(
        state.params, state.batch_stats, batch
    )
    new_state = update(
        state,
        grads,
        batch_stats,
        optimizer=optimizer,
        frozen=groups.freeze,
        ema_decay=config.optim.ema_decay,
    )
    metrics["grad_norm"] = optax.tree.norm(grads)
    if (agc := config.optim.agc).clipping:
        metrics["clip_fraction"] = clip_fraction(
            grads, state.params, groups.agc, agc.clipping, agc.eps
        )
    if config.log.gradient_ratios:
        metrics["gradient_ratios"] = gradient_ratios(grads, state.params)
    if config.train.on_nan == "skip":
        return skip_if_not_finite(new_state, state, metrics)
    return new_state, metrics


def skip_if_not_finite(
    new: TrainState, old: TrainState, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """`new` where `loss` and `grad_norm` are finite, or else `old` a step further."""
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    kept = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), new, old.replace(step=new.step)
    )
    return kept, metrics | {"skipped": 1.0 - finite.astype(jnp.float32)}


def make_eval_step(
    model: Network,
    batches: Batches,
    data_spec: DataSpec,
    mesh: Mesh,
    dtype: str = "float32",
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
        images, labels = split_batch(mesh, images.astype(dtype), labels)
        forward = functools.partial(model.apply, train=False)
        logits: Any = on_rows(mesh, forward)(gather(mesh, variables), images)
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
