"""The two compiled functions of a run: one update, one evaluation batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from nfnet_jax.data.augment import normalize, take_crops
from nfnet_jax.data.finish import finish_batch
from nfnet_jax.data.mixing import drawn_per_image
from nfnet_jax.data.order import drawn_positions, shuffled_indices
from nfnet_jax.models.network import Network
from nfnet_jax.optim.build import frozen_mask
from nfnet_jax.optim.ema import update_ema
from nfnet_jax.optim.tree import keep_frozen
from nfnet_jax.training.sharding import DeviceData, split_batch
from nfnet_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def make_draw_batch(
    config: ConfigDict, num_classes: int
) -> Callable[[jax.Array, DeviceData], tuple[jax.Array, jax.Array]]:
    """`draw_batch(step, data) -> (images, targets)`, for use inside a jitted function.

    Images [N, H, W, C] are what the network sees, in `config.train.dtype`; targets are
    class probabilities float32 [N, num_classes] before label smoothing.
    """
    keys = jax.random.split(jax.random.key(config.seed), 4)
    order_key, example_key, finish_key = keys[0], keys[1], keys[3]
    batch_size = config.data.batch_size

    def draw_batch(step, data):
        positions = step.astype(jnp.uint32) * batch_size + jnp.arange(
            batch_size, dtype=jnp.uint32
        )
        draws, places = drawn_positions(
            positions, drawn_per_image(config.train), config.data.augment.repeats
        )
        indices = shuffled_indices(order_key, places, len(data.labels))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(example_key, draws)
        uniform = jax.vmap(lambda key: jax.random.uniform(key, (5,)))(keys)
        crops = take_crops(data.images, indices, uniform, config.data.augment)
        crops, labels, positions = split_batch(crops, data.labels[indices], positions)
        images, targets = finish_batch(
            crops,
            labels,
            positions,
            finish_key,
            config,
            num_classes,
            data.mean,
            data.std,
        )
        return split_batch(images.astype(config.train.dtype), targets)

    return draw_batch


def make_train_step(
    config: ConfigDict, model: Network, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, DeviceData], tuple[TrainState, Metrics]]:
    """`step(state, data) -> (state, metrics)`: draw, augment, differentiate, update.

    The state is donated. Metrics are scalars of the batch: `loss` (the objective, with
    label smoothing), `accuracy` (of mixed images: for the class with the larger share),
    `grad_norm` (before clipping). Frozen parameters and their average keep every bit,
    and their gradients are not computed.
    """
    model_key = jax.random.split(jax.random.key(config.seed), 4)[2]
    accumulate = config.optim.accumulate
    draw_batch = make_draw_batch(config, model.spec.num_classes)

    def objective(params, batch_stats, images, targets, key):
        frozen = frozen_mask(config.optim, params)
        params = keep_frozen(params, jax.lax.stop_gradient(params), frozen)
        logits, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        smooth = optax.smooth_labels(targets, config.train.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, smooth).mean()
        correct = logits.argmax(-1) == targets.argmax(-1)
        metrics = {"loss": loss, "accuracy": jnp.mean(correct)}
        return loss, (metrics, updated.get("batch_stats", {}))

    differentiate = jax.grad(objective, has_aux=True)

    def gradients(params, batch_stats, images, targets, key):
        """Mean gradients and metrics of the batch, and the statistics after it."""
        if accumulate == 1:
            grads, (metrics, stats) = differentiate(
                params, batch_stats, images, targets, key
            )
            return (grads, metrics), stats

        def add(carry, microbatch):
            total, stats = carry
            grads, (metrics, stats) = differentiate(params, stats, *microbatch)
            part = (grads, metrics)
            total = jax.tree.map(lambda t, p: t + p / accumulate, total, part)
            return (total, stats), None

        microbatches = jax.tree.map(
            lambda x: x.reshape(accumulate, -1, *x.shape[1:]), (images, targets)
        )
        scanned = (*microbatches, jax.random.split(key, accumulate))
        zeros = {"loss": jnp.zeros(()), "accuracy": jnp.zeros(())}
        start = (jax.tree.map(jnp.zeros_like, params), zeros)
        return jax.lax.scan(add, (start, batch_stats), scanned)[0]

    def step(state: TrainState, data: DeviceData):
        images, targets = draw_batch(state.step, data)
        key = jax.random.fold_in(model_key, state.step)
        (grads, metrics), stats = gradients(
            state.params, state.batch_stats, images, targets, key
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
