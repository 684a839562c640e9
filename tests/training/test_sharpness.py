"""SAM in a step: against NumPy, with microbatches, frozen parameters and dropout."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from tiny_training import DATA, setup

from nfnet_jax.layers.dropout import kept as draw
from nfnet_jax.training.parallel import GLOBAL
from nfnet_jax.training.sharpness import sharpness_aware
from nfnet_jax.training.timeline import make_plan
from nfnet_jax.utils.errors import UserError

RNG = np.random.RandomState(0)
FEATURES, VALUES = RNG.standard_normal((20, 6)), RNG.standard_normal(20)


def slope(w, x, y):
    """Of the mean of (xw - y)² / 2."""
    return x.T @ (x @ w - y) / len(y)


@pytest.mark.parametrize(
    ("fraction", "rows"), [(1.0, range(20)), (0.25, (0, 4, 8, 12, 16)), (0.01, (0,))]
)
@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_five_steps_of_descent_against_numpy(fraction, rows, rho):
    def gradients(params, stats, x, y):
        return ({"w": slope(params["w"], x, y)}, {}), stats

    sam = ConfigDict({"rho": rho, "fraction": fraction})
    aware = jax.jit(sharpness_aware(gradients, sam, GLOBAL))
    params = {"w": jnp.zeros(6)}
    expected = np.zeros(6)
    x, y = (jnp.asarray(a, jnp.float32) for a in (FEATURES, VALUES))
    for _ in range(5):
        (grads, _), _ = aware(params, {}, x, y)
        params = {"w": params["w"] - 0.1 * grads["w"]}
        ascent = slope(expected, FEATURES[list(rows)], VALUES[list(rows)])
        above = expected + rho * ascent / np.sqrt(np.sum(ascent**2))
        expected = expected - 0.1 * slope(above, FEATURES, VALUES)
    error = np.abs(np.asarray(params["w"]) - expected).max()
    assert error <= 1e-6 * np.abs(expected).max()


def test_both_passes_draw_alike_and_statistics_are_those_before_the_ascent():
    def gradients(params, stats, x, y, positions):
        kept = draw(jax.random.key(7), positions, 0.5, (6,))
        x = jnp.where(kept, x, 0)
        return ({"w": slope(params["w"], x, y)}, {"kept": kept}), params["w"]

    sam = ConfigDict({"rho": 0.3, "fraction": 1.0})
    weights, positions = np.arange(6.0), jnp.arange(100, 120)
    (grads, metrics), stats = sharpness_aware(gradients, sam, GLOBAL)(
        {"w": jnp.asarray(weights)},
        jnp.zeros(6),
        jnp.asarray(FEATURES),
        jnp.asarray(VALUES),
        positions,
    )
    kept = np.asarray(draw(jax.random.key(7), positions, 0.5, (6,)))
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
    _, model, step, state = setup(**changes)
    before = jax.tree.map(jnp.copy, state.params)
    _, _, step_in_parts, _ = setup(**changes, **{"optim.accumulate": 4})
    same, same_metrics = step_in_parts(jax.tree.map(jnp.copy, state))
    state, metrics = step(state)
    chex.assert_trees_all_close(state.params, same.params, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(metrics, same_metrics, rtol=1e-4)
    for part in changes["optim.freeze"]:
        chex.assert_trees_all_equal(state.params[part], before[part])
        chex.assert_trees_all_equal(state.ema_params[part], before[part])
    images = (np.asarray(DATA.images, np.float32) / 255 - 0.5) / 0.25
    logits = model.apply({"params": before}, images)
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
    config = setup(**{"data.batch_size": 128})[0]
    config.optim.sam.fraction = fraction
    make_plan(config, 1000, devices)
    config.optim.sam.rho = 0.05
    make_plan(config, 1000, 1)
    with pytest.raises(UserError, match=words):
        make_plan(config, 1000, devices)
