"""Muon against float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.config import base_config
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.groups import parameter_groups
from nfnet_jax.optim.rules import convolution_kernels, orthogonalize

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


@functools.cache
def history():
    """Parameters before, after one step and after two, of the config's Muon."""
    config = base_config()
    config.optim.update({"name": "muon", "momentum": MOMENTUM, "weight_decay": 0.0})
    config.optim.agc.clipping, config.optim.muon.adam_share = 0.0, 0.1
    config.optim.agc.exclude = ("classifier",)
    optimizer = build_optimizer(
        config.optim, lambda step: RATE, parameter_groups(config.optim, PARAMS)
    )
    update, state, found = jax.jit(optimizer.update), optimizer.init(PARAMS), [PARAMS]
    for grads in GRADS:
        updates, state = update(grads, state, found[-1])
        found.append(jax.tree.map(jnp.add, found[-1], updates))
    return found


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


def test_kernels_move_as_by_hand():
    def stack(tree):
        return [tree["conv"]["kernel"], *tree["blocks"]["conv"]["kernel"]]

    for before, found, *grads in zip(
        *map(stack, (PARAMS, history()[2], *GRADS)), strict=True
    ):
        expected = by_hand(before, grads)
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


def test_everything_else_gets_adam():
    after, grads = history()[1], GRADS[0]
    for path in (("conv", "bias"), ("classifier", "kernel")):
        before, found, grad = (
            tree[path[0]][path[1]] for tree in (PARAMS, after, grads)
        )
        # Bias-corrected, the first step is the rate times the sign.
        expected = before - 0.1 * RATE * np.sign(grad)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


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
