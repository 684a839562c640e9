"""One update: independent of microbatches, devices and the host."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_training import DATA, experiment, setup

from nfnet_jax.training.data_spec import DataSpec


def evaluate(run, state):
    """The sums of each batch."""
    variables = {"params": state.params}
    host_batches = run.test_batches.iterate(0)
    return [run.eval_step(variables, batch, i) for i, batch in enumerate(host_batches)]


def test_a_batch_can_be_learned_by_heart():
    run, step, state = setup(**{"data.batch_size": 48, "optim.learning_rate": 0.1})
    for _ in range(60):
        state, metrics = step(state)
    assert float(metrics["loss"]) < 0.1
    (sums,) = evaluate(run, state)
    assert int(sums["correct"]) == 48


EVERYTHING = {
    "train.mixup": 0.2,
    "train.cutmix": True,
    "data.augment.randaugment.layers": 2,
    "data.augment.random_resized_crop": True,
    "data.augment.flip": True,
    "data.augment.erasing": 0.5,
}


def draw(run, number):
    """Images and targets of a batch."""
    host_batch = next(run.train_batches.iterate(number))
    return jax.jit(run.make_draw())(host_batch, jnp.array(number))[:2]


def test_an_images_fate_depends_on_its_position_alone():
    """Two batches of 8 are the batch of 16 at the same positions, bit for bit."""
    batches = {}
    for size in (8, 16):
        run = experiment(**EVERYTHING, **{"data.batch_size": size})
        batches[size] = [draw(run, step) for step in range(16 // size)]
    for i in range(2):
        parts = [batch[i] for batch in batches[8]]
        np.testing.assert_array_equal(np.concatenate(parts), batches[16][0][i])


def test_targets_are_mixed_and_the_loss_is_of_them():
    changes = {"train.cutmix": True, "train.label_smoothing": 0.1}
    run, step, state = setup(**changes)
    images, targets = draw(run, 0)
    targets = np.asarray(targets, float)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    assert np.mean((targets > 0.01).sum(1) == 2) > 0.5
    logits = np.asarray(run.model.apply({"params": state.params}, images), float)
    smooth = 0.9 * targets + 0.01
    log_sums = np.log(np.exp(logits).sum(1, keepdims=True))
    expected = (smooth * (log_sums - logits)).sum(1).mean()
    _, metrics = step(state)
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)


def test_an_epoch_of_pairs_shows_every_example_once():
    data = dataclasses.replace(DATA, labels=np.arange(48, dtype=np.int32))
    spec = DataSpec.of_shape((8, 8, 1), 48)
    run = experiment(data, spec, **{"train.mixup": 1.0, "data.batch_size": 24})
    _, targets = draw(run, 0)
    assert np.all(np.asarray(targets).sum(0) > 0)


def test_microbatches_give_the_update_of_the_whole_batch():
    augment = {"data.augment.crop_padding": 2, "data.augment.cutout": 3}
    _, whole, state = setup(**augment)
    _, parts, same = setup(**augment, **{"optim.accumulate": 4})
    for _ in range(2):
        state, metrics = whole(state)
        same, same_metrics = parts(same)
    chex.assert_trees_all_close(state.params, same.params, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(metrics, same_metrics, rtol=1e-4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_norm_baseline_updates_its_running_statistics(accumulate):
    """The stem is linear, so its output's moments are known from the parameters."""
    run, step, state = setup(
        **{
            "model.name": "bn_wrn_10_1",
            "optim.accumulate": accumulate,
            "optim.learning_rate": 0.0,
            "optim.weight_decay_exclude": ("bias$", "scale$"),
            "optim.agc.exclude": ("classifier",),
            "data.batch_size": 48,
        }
    )
    images = (np.asarray(DATA.images, np.float32) / 255 - 0.5) / 0.25
    stem = run.model.stem.apply({"params": state.params["stem"]}, images)
    variance = np.asarray(stem, float).var((0, 1, 2))
    state, metrics = step(state)
    stats = state.batch_stats["stages_0"]["transition"]["BatchNorm_0"]
    remaining = 0.9**accumulate
    expected = remaining + (1 - remaining) * variance
    assert np.abs(expected - 1).max() > 0.1
    # Halves of the batch have nearly the variance of the whole.
    tolerance = 1e-5 if accumulate == 1 else 5e-3
    np.testing.assert_allclose(stats["var"], expected, atol=tolerance)
    assert np.isfinite(float(metrics["loss"]))


def test_nothing_crosses_to_the_host_in_the_loop():
    _, step, state = setup()
    state, _ = step(state)
    with jax.transfer_guard("disallow"):
        state, _ = step(state)


def test_evaluation_counts_every_example_once():
    run, _, state = setup(**{"data.eval_batch_size": 20})
    sums = evaluate(run, state)
    assert [int(s["examples"]) for s in sums] == [20, 20, 8]
    images = (np.asarray(DATA.images, np.float32) / 255 - 0.5) / 0.25
    logits = run.model.apply({"params": state.params}, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, DATA.labels)
    total = sum(float(s["loss"]) for s in sums)
    assert total == pytest.approx(float(losses.sum()), rel=1e-5)
    right = np.sum(np.argmax(logits, -1) == DATA.labels)
    assert sum(int(s["correct"]) for s in sums) == right
