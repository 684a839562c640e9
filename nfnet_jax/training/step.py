"""The two compiled functions of a run: one update, one evaluation batch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from nfnet_jax.data.augment import augment_batch, normalize, shrink
from nfnet_jax.data.batches import Batch, Batches, batch_example_ids, run_keys
from nfnet_jax.models.network import Network
from nfnet_jax.optim.ema import update_ema
from nfnet_jax.optim.factory import clipped_share, frozen_mask
from nfnet_jax.optim.tree import gradient_ratios, keep_frozen
from nfnet_jax.training.compiler import compiler_options
from nfnet_jax.training.data_spec import DataFacts
from nfnet_jax.training.parallel import (
    GLOBAL,
    PER_DEVICE,
    BatchView,
    compute_under_jit,
    gather,
    place,
    pmap_step,
    split_batch,
)
from nfnet_jax.training.sharpness import sharpness_aware
from nfnet_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def make_draw_batch(
    config: ConfigDict,
    batches: Batches,
    facts: DataFacts,
    num_classes: int,
    image_size: int | None = None,
    view: BatchView = GLOBAL,
) -> Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]:
    """`draw_batch(host_batch, step) -> (images, targets)`, for use inside a jitted function.

    Images [N, H, W, C] are what the network sees, in `config.train.dtype`; targets are
    class probabilities float32 [N, num_classes] before label smoothing; N are the
    examples of `part`. `image_size`: of the side that augmented
    images are resized to, None for that of the data.
    """
    key, moments = run_keys(config.seed).augment, facts.moments

    def draw_batch(host_batch, step):
        batch = Batch(
            *view.shard(*batches.materialize(host_batch, step, view.local_rows))
        )
        images, targets = augment_batch(
            batch, key, config.data.augment, config.train, moments, num_classes
        )
        images = shrink(images, image_size) if image_size else images
        return view.shard(images.astype(config.train.dtype), targets)

    return draw_batch


def make_train_step(
    config: ConfigDict,
    model: Network,
    optimizer: optax.GradientTransformation,
    batches: Batches,
    facts: DataFacts,
    image_size: int | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """`step(state, host_batch) -> (state, metrics)`: draw, augment, differentiate, update.

    `host_batch` is what `batches.iterate` gives for the batch that `TrainState` tells. The state
    is donated. Metrics are scalars of the batch: `loss` (the objective, with label
    smoothing; with SAM, after its ascent), `accuracy` (of mixed images: for the class
    with the larger share), `grad_norm` (before clipping) and, with AGC,
    `clip_fraction`; `gradient_ratios`, an array of all layers, on request. Frozen
    parameters and their average keep every bit, and their gradients are not computed.
    `image_size`: see `make_draw_batch`.

    With `config.train.on_nan="skip"`, a batch whose loss or gradient is not finite
    leaves all but the step as it was; the metric `skipped` is 1 for it, 0 for others.
    """
    model_key, accumulate = run_keys(config.seed).model, config.optim.accumulate
    under_pmap, fsdp = config.parallel.mode == "pmap", config.parallel.fsdp

    def objective(params, batch_stats, images, targets, positions):
        frozen = frozen_mask(config.optim, params)
        params = keep_frozen(params, jax.lax.stop_gradient(params), frozen)
        logits, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            examples=positions,
            rngs={"dropout": model_key},
            mutable=["batch_stats"],
        )
        smooth = optax.smooth_labels(targets, config.train.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, smooth).mean()
        correct = logits.argmax(-1) == targets.argmax(-1)
        metrics = {"loss": loss, "accuracy": jnp.mean(correct)}
        return loss, (metrics, updated.get("batch_stats", {}))

    differentiate = jax.grad(objective, has_aux=True)

    def gradients(params, batch_stats, *batch):
        """Mean gradients and metrics of the batch, and the statistics after it."""
        if accumulate == 1:
            grads, (metrics, stats) = differentiate(params, batch_stats, *batch)
            return (grads, metrics), stats

        def add(carry, microbatch):
            total, stats = carry
            grads, (metrics, stats) = differentiate(params, stats, *microbatch)
            part = (grads, metrics)
            total = jax.tree.map(lambda t, p: t + p / accumulate, total, part)
            return (total, stats), None

        # Every so many-th example, so that none changes its device.
        microbatches = [
            array.reshape(-1, accumulate, *array.shape[1:]).swapaxes(0, 1)
            for array in batch
        ]
        zeros = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}
        start = (jax.tree.map(jnp.zeros_like, params), zeros)
        return jax.lax.scan(add, (start, batch_stats), microbatches)[0]

    def compute(view, params, batch_stats, host_batch, step):
        """`gradients` of the batch number `step`, from the part of this program."""
        draw_batch = make_draw_batch(
            config, batches, facts, model.spec.num_classes, image_size, view
        )
        images, targets = draw_batch(host_batch, step)
        positions = view.local_rows(batch_example_ids(step, config.data.batch_size))

        def mean_gradients(*arguments):
            return view.average(gradients(*arguments))

        if config.optim.sam.rho:
            mean_gradients = sharpness_aware(mean_gradients, config.optim.sam, view)
        return mean_gradients(params, batch_stats, images, targets, positions)

    def observe(grads, params):
        """Metrics of the gradients before they are clipped."""
        metrics = {"grad_norm": optax.tree.norm(grads)}
        if config.optim.agc.clipping:
            metrics["clip_fraction"] = clipped_share(config.optim, grads, params)
        if config.log.gradient_ratios:
            metrics["gradient_ratios"] = gradient_ratios(grads, params)
        return metrics

    def update(state: TrainState, grads, stats, metrics):
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update_ema(state.ema_params, params, state.step, config.optim.ema_decay)
        # Not left to an update of 0, which turns -0 into 0.
        frozen = frozen_mask(config.optim, params)
        params = keep_frozen(params, state.params, frozen)
        ema = keep_frozen(ema, state.ema_params, frozen)
        new_state = state.replace(
            step=state.step + 1,
            params=params,
            ema_params=ema,
            batch_stats=stats,
            opt_state=opt_state,
        )
        metrics |= observe(grads, state.params)
        if config.train.on_nan == "skip":
            return skip_if_not_finite(new_state, state, metrics)
        return new_state, metrics

    def device_step(state: TrainState, host_batch: Any):
        (grads, metrics), stats = compute(
            PER_DEVICE,
            state.params,
            state.batch_stats,
            host_batch,
            state.step + state.skipped,
        )
        return update(state, grads, stats, metrics)

    @functools.partial(
        jax.jit, donate_argnums=0, compiler_options=compiler_options(config)
    )
    def step(state: TrainState, host_batch: Any):
        (grads, metrics), stats = compute_under_jit(compute, batches.sharded)(
            gather(state.params),
            state.batch_stats,
            host_batch,
            state.step + state.skipped,
        )
        new_state, metrics = update(state, place(grads, fsdp), stats, metrics)
        return place(new_state, fsdp), gather(metrics)

    return pmap_step(device_step, batches.sharded) if under_pmap else step


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
    config: ConfigDict, model: Network, batches: Batches, facts: DataFacts
) -> Callable[..., Metrics]:
    """`step(variables, host_batch, number) -> sums` over one batch of an evaluation.

    Sums over the examples that there are: their number `examples`, `correct`, `loss`
    (cross entropy without smoothing).
    """
    moments = facts.moments

    @jax.jit
    def step(variables, host_batch, number):
        images, labels, _ = batches.materialize(host_batch, number)
        images = normalize(images, *moments)
        images, labels = split_batch(images.astype(config.train.dtype), labels)
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
