"""SAM in a step: against NumPy, with microbatches, frozen parameters and dropout."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from tiny_training import DATA, experiment, setup

from nfnet_jax.layers.dropout import kept as draw
from nfnet_jax.training.parallel import device_mesh, whole_batch
from nfnet_jax.training.step import TrainingBatch, batch_gradients
from nfnet_jax.training.timeline import make_timeline
from nfnet_jax.utils.errors import UserError

RNG = np.random.RandomState(0)
FEATURES, VALUES = RNG.standard_normal((20, 6)), RNG.standard_normal(20)


def slope(w, x, y):
    """Gradient of the mean of (xw - y)² / 2."""
    return x.T @ (x @ w - y) / len(y)


def gradients_with_sam(loss, params, batch_stats, first=0, **sam):
    """`batch_gradients` of `loss` on the rows of `FEATURES`, compiled."""
    config = ConfigDict({"accumulate": 1, "sam": sam})
    features, values = (jnp.asarray(a, jnp.float32) for a in (FEATURES, VALUES))
    batch = TrainingBatch(features, values, jnp.arange(first, first + 20))
    view = whole_batch(device_mesh())
    differentiate = functools.partial(batch_gradients, loss, config, view=view)
    return jax.jit(differentiate)(params, batch_stats, batch)


@pytest.mark.parametrize(
    ("fraction", "rows"), [(1.0, range(20)), (0.25, (0, 4, 8, 12, 16)), (0.01, (0,))]
)
@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_five_steps_of_descent_against_numpy(fraction, rows, rho):
    def loss(params, stats, batch):
        error = batch.images @ params["w"] - batch.targets
        return (error**2).mean() / 2, ({}, stats)

    params = {"w": jnp.zeros(6)}
    expected = np.zeros(6)
    for _ in range(5):
        _, grads = gradients_with_sam(loss, params, {}, rho=rho, fraction=fraction)
        params = {"w": params["w"] - 0.1 * grads["w"]}
        ascent = slope(expected, FEATURES[list(rows)], VALUES[list(rows)])
        above = expected + rho * ascent / np.sqrt(np.sum(ascent**2))
        expected = expected - 0.1 * slope(above, FEATURES, VALUES)
    error = np.abs(np.asarray(params["w"]) - expected).max()
    assert error <= 1e-6 * np.abs(expected).max()


def test_both_passes_draw_alike_and_statistics_are_those_before_the_ascent():
    def loss(params, stats, batch):
        kept = draw(jax.random.key(7), batch.example_ids, 0.5, (6,))
        error = jnp.where(kept, batch.images, 0) @ params["w"] - batch.targets
        return (error**2).mean() / 2, ({"kept": kept}, params["w"])

    weights, examples = np.arange(6.0), jnp.arange(100, 120)
    params = {"w": jnp.asarray(weights)}
    (metrics, stats), grads = gradients_with_sam(
        loss, params, jnp.zeros(6), first=100, rho=0.3, fraction=1.0
    )
    kept = np.asarray(draw(jax.random.key(7), examples, 0.5, (6,)))
    np.testing.assert_array_equal(metrics["kept"], kept)
    np.testing.assert_array_equal(stats, weights)
    ascent = slope(weights, FEATURES * kept, VALUES)
    above = weights + 0.3 * ascent / np.linalg.norm(ascent)
    np.testing.assert_allclose(
        grads["w"], slope(above, FEATURES * kept, VALUES), rtol=1e-5
    )


def test_microbatches_and_frozen_parameters_in_a_step():
    changes = {
        "data.batch_size": 48,
        "optim.sam.rho": 0.5,
        "optim.sam.fraction": 0.5,
        "optim.freeze": ("stem", "stages_0"),
    }
    run, step, state = setup(**changes)
    before = jax.tree.map(jnp.copy, state.params)
    _, step_in_parts, _ = setup(**changes, **{"optim.accumulate": 4})
    same, same_metrics = step_in_parts(jax.tree.map(jnp.copy, state))
    state, metrics = step(state)
    chex.assert_trees_all_close(state.params, same.params, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(metrics, same_metrics, rtol=1e-4)
    for part in changes["optim.freeze"]:
        chex.assert_trees_all_equal(state.params[part], before[part])
        chex.assert_trees_all_equal(state.ema_params[part], before[part])
    images = (np.asarray(DATA.images, np.float32) / 255 - 0.5) / 0.25
    logits = run.model.apply({"params": before}, images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, DATA.labels).mean()
    assert float(metrics["loss"]) > loss + 0.01


@pytest.mark.parametrize(
    ("fraction", "devices", "words"),
    [
        (0.2, 8, r"fraction is 0.2, 26 of 128 .* multiple of 8 .* mean 0.1875\?"),
        (0.001, 8, r"fraction is 0.001, 1 of 128 .* did you mean 0.0625\?"),
    ],
)
def test_a_share_that_devices_cannot_share_is_refused(fraction, devices, words):
    config = experiment(**{"data.batch_size": 128}).config
    config.optim.sam.fraction = fraction
    make_timeline(config, 1000, devices)
    config.optim.sam.rho = 0.05
    make_timeline(config, 1000, 1)
    with pytest.raises(UserError, match=words):
        make_timeline(config, 1000, devices)
