"""Muon against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.config import base_config
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.groups import parameter_groups
from nfnet_jax.optim.rules import convolution_kernels, muon, orthogonalize

RATE, MOMENTUM = 0.3, 0.6

# Adam is optax's.
pytestmark = pytest.mark.promotes


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARAMS = {
    "conv": {"kernel": random(3, 3, 4, 8), "bias": random(8)},
    "blocks": {"conv": {"kernel": random(2, 3, 3, 4, 8)}},
    "classifier": {"kernel": random(8, 5)},
}
GRADS = [
    jax.tree.map(lambda p, seed=seed: random(*p.shape, seed=seed), PARAMS)
    for seed in (1, 2)
]


def updated(steps):
    optimizer = muon(lambda step: RATE, 0.1, momentum=MOMENTUM, nesterov=True)
    state, params = optimizer.init(PARAMS), PARAMS
    for grads in GRADS[:steps]:
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def newton_schulz(matrix):
    u = matrix.astype(np.float64) / np.linalg.norm(matrix)
    for _ in range(5):
        gram = u.T @ u
        u = 3.4445 * u + u @ (-4.7750 * gram + 2.0315 * gram @ gram)
    return u


def by_hand(kernel, grads):
    """[KH · KW · C, O] matrices: Nesterov momentum, five Newton-Schulz steps."""
    weights = kernel.astype(np.float64).reshape(-1, kernel.shape[-1])
    moment = np.zeros_like(weights)
    for grad in grads:
        grad = grad.astype(np.float64).reshape(weights.shape)
        moment = MOMENTUM * moment + grad
        u = newton_schulz(MOMENTUM * moment + grad)
        step = RATE * np.linalg.norm(weights) / np.linalg.norm(u)
        weights = weights - step * u
    return weights.reshape(kernel.shape)


@pytest.mark.parametrize("steps", [1, 2])
def test_kernels_move_as_by_hand(steps):
    after = updated(steps)
    expected = by_hand(
        PARAMS["conv"]["kernel"], [g["conv"]["kernel"] for g in GRADS[:steps]]
    )
    np.testing.assert_allclose(after["conv"]["kernel"], expected, rtol=1e-4, atol=1e-5)
    for layer in range(2):
        expected = by_hand(
            PARAMS["blocks"]["conv"]["kernel"][layer],
            [g["blocks"]["conv"]["kernel"][layer] for g in GRADS[:steps]],
        )
        found = after["blocks"]["conv"]["kernel"][layer]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(90, 10), (10, 90), (3, 64, 64)])
@pytest.mark.parametrize(
    ("condition", "tolerance"), [(1, 1e-6), (10, 1e-5), (1e3, 5e-3), (1e6, 5e-3)]
)
def test_orthogonalization_down_to_singular_matrices(shape, condition, tolerance):
    left, _, right = np.linalg.svd(random(*shape), full_matrices=False)
    values = np.geomspace(1, 1 / condition, left.shape[-1])
    matrix = ((left * values) @ right).astype(np.float32)
    expected = np.stack([newton_schulz(m) for m in matrix.reshape(-1, *shape[-2:])])
    found = orthogonalize(matrix).reshape(expected.shape)
    # A Gram matrix knows singular values below 3e-4 of the largest only roughly. The
    # steps themselves leave them anywhere between 0.7 and 1.2.
    error = np.linalg.norm(found - expected, 2, axis=(-2, -1))
    assert error.max() <= tolerance


def test_orthogonalization_is_as_exact_on_every_platform():
    program = str(jax.make_jaxpr(orthogonalize)(random(90, 10)))
    assert program.count("HIGHEST") == 2 * program.count("dot_general") > 0


def test_the_rate_is_the_relative_change_of_a_kernel():
    before, after = PARAMS["conv"]["kernel"], updated(1)["conv"]["kernel"]
    change = np.linalg.norm(after - before) / np.linalg.norm(before)
    np.testing.assert_allclose(change, RATE, rtol=1e-5)


def test_everything_else_gets_adam():
    after, grads = updated(1), GRADS[0]
    for path in (("conv", "bias"), ("classifier", "kernel")):
        before, found, grad = (
            tree[path[0]][path[1]] for tree in (PARAMS, after, grads)
        )
        # Bias-corrected, the first step is the rate times the sign.
        expected = before - 0.1 * RATE * np.sign(grad)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_config_chooses_muon_and_freezes_kernels():
    config = base_config()
    config.optim.name = "muon"
    config.optim.weight_decay = 0.0
    config.optim.weight_decay_exclude = ("bias$",)
    config.optim.agc.clipping = 0.0
    config.optim.agc.exclude = ("classifier",)
    config.optim.freeze = ("^conv/kernel",)
    optimizer = build_optimizer(
        config.optim, lambda step: RATE, parameter_groups(config.optim, PARAMS)
    )
    updates, _ = optimizer.update(GRADS[0], optimizer.init(PARAMS), PARAMS)
    assert not np.any(updates["conv"]["kernel"])
    stack = PARAMS["blocks"]["conv"]["kernel"]
    for weights, update in zip(stack, updates["blocks"]["conv"]["kernel"], strict=True):
        change = np.linalg.norm(update) / np.linalg.norm(weights)
        np.testing.assert_allclose(change, RATE, rtol=1e-5)


def test_stacked_convolutions_along_channels_are_no_matrices():
    """A stack [L, K, 1, 1] has as many axes as one kernel [KH, KW, C, O]."""
    stack = {"stages_0": {"blocks": {"conv": {"kernel": random(5, 3, 1, 1)}}}}
    single = {"conv": {"kernel": random(3, 1, 1)}}
    assert not any(jax.tree.leaves(convolution_kernels(stack | single)))
    assert convolution_kernels(PARAMS) == {
        "conv": {"kernel": True, "bias": False},
        "blocks": {"conv": {"kernel": True}},
        "classifier": {"kernel": False},
    }
