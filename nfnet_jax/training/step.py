"""The two compiled functions of a run: one update, one evaluation batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from nfnet_jax.data.augment import (
    alternate_flips,
    cutout,
    normalize,
    shrink,
    take_crops,
)
from nfnet_jax.data.order import shuffled_indices
from nfnet_jax.models.network import Network
from nfnet_jax.optim.build import frozen_mask
from nfnet_jax.optim.ema import update_ema
from nfnet_jax.optim.tree import keep_frozen
from nfnet_jax.training.sharding import DeviceData, split_batch
from nfnet_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def make_train_step(
    config: ConfigDict,
    model: Network,
    optimizer: optax.GradientTransformation,
    image_size: int | None = None,
) -> Callable[[TrainState, DeviceData], tuple[TrainState, Metrics]]:
    """`step(state, data) -> (state, metrics)`: draw, augment, differentiate, update.

    The state is donated. Metrics are scalars of the batch: `loss` (the objective, with
    label smoothing), `accuracy`, `grad_norm` (before clipping). `image_size`: of the
    side that augmented images are resized to, None for that of the data. Frozen
    parameters and their average keep every bit, and their gradients are not computed.
    """
    order_key, example_key, model_key = jax.random.split(jax.random.key(config.seed), 3)
    batch_size, accumulate = config.data.batch_size, config.optim.accumulate

    def draw_batch(step, data):
        positions = step.astype(jnp.uint32) * batch_size + jnp.arange(
            batch_size, dtype=jnp.uint32
        )
        indices = shuffled_indices(order_key, positions, len(data.labels))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(example_key, positions)
        draws = jax.vmap(lambda key: jax.random.uniform(key, (5,)))(keys)
        augment = config.data.augment
        if augment.alternate_flip:
            epochs = positions // len(data.labels)
            flips = alternate_flips(order_key, indices, epochs)
            draws = draws.at[:, 2].set(flips)
        images = take_crops(data.images, indices, draws, augment)
        images = normalize(images, data.mean, data.std)
        if augment.cutout:
            images = cutout(images, draws[:, 3:], augment.cutout)
        if image_size:
            images = shrink(images, image_size)
        return split_batch(images.astype(config.train.dtype), data.labels[indices])

    def objective(params, batch_stats, images, labels, key):
        frozen = frozen_mask(config.optim, params)
        params = keep_frozen(params, jax.lax.stop_gradient(params), frozen)
        logits, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(targets, config.train.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        metrics = {"loss": loss, "accuracy": jnp.mean(logits.argmax(-1) == labels)}
        return loss, (metrics, updated.get("batch_stats", {}))

    differentiate = jax.grad(objective, has_aux=True)

    def gradients(params, batch_stats, images, labels, key):
        """Mean gradients and metrics of the batch, and the statistics after it."""
        if accumulate == 1:
            grads, (metrics, stats) = differentiate(
                params, batch_stats, images, labels, key
            )
            return (grads, metrics), stats

        def add(carry, microbatch):
            total, stats = carry
            grads, (metrics, stats) = differentiate(params, stats, *microbatch)
            part = (grads, metrics)
            total = jax.tree.map(lambda t, p: t + p / accumulate, total, part)
            return (total, stats), None

        microbatches = jax.tree.map(
            lambda x: x.reshape(accumulate, -1, *x.shape[1:]), (images, labels)
        )
        scanned = (*microbatches, jax.random.split(key, accumulate))
        zeros = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}
        start = (jax.tree.map(jnp.zeros_like, params), zeros)
        return jax.lax.scan(add, (start, batch_stats), scanned)[0]

    def step(state: TrainState, data: DeviceData):
        images, labels = draw_batch(state.step, data)
        key = jax.random.fold_in(model_key, state.step)
        (grads, metrics), stats = gradients(
            state.params, state.batch_stats, images, labels, key
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update_ema(state.ema_params, params, state.step, config.optim.ema_decay)
        # Not left to an update of 0, which turns -0 into 0.
        frozen = frozen_mask(config.optim, params)
        params = keep_frozen(params, state.params, frozen)
        ema = keep_frozen(ema, state.ema_params, frozen)
        new_state = TrainState(state.step + 1, params, ema, stats, opt_state)
        return new_state, metrics | {"grad_norm": optax.tree.norm(grads)}

    return jax.jit(step, donate_argnums=0)


def make_eval_step(config: ConfigDict, model: Network) -> Callable[..., Metrics]:
    """`step(variables, data, start) -> sums` over the examples from `start` on.

    Sums over at most `config.data.eval_batch_size` examples: `correct`, `loss` (cross
    entropy without smoothing).
    """
    batch_size = config.data.eval_batch_size

    @jax.jit
    def step(variables, data, start):
        indices = start + jnp.arange(min(batch_size, len(data.labels)))
        real = indices < len(data.labels)
        indices = jnp.where(real, indices, 0)
        images = normalize(data.images[indices], data.mean, data.std)
        images, labels = split_batch(
            images.astype(config.train.dtype), data.labels[indices]
        )
        logits = model.apply(variables, images, train=False)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = logits.argmax(-1) == labels
        return {
            "correct": jnp.sum(correct & real),
            "loss": jnp.sum(jnp.where(real, loss, 0.0)),
        }

    return step
