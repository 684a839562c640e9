"""Second derivatives and other dtypes through whole networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import OPTIONS, logits_in_training, small_network

from nfnet_jax.utils.jax_versions import enable_x64

ONE_STAGE = {"widths": (16,), "width_multiplier": 1.0, "depths": (1,)}
SOME = [
    ("nf_resnet50", ONE_STAGE),
    ("nf_regnet_b0", ONE_STAGE),
    ("nf_air_4", {}),
    *(
        pytest.param(name, {}, marks=pytest.mark.slow)
        for name in ("bn_wrn_10_1", "fixup_wrn_10_1")
    ),
]
"""Networks that have every layer with a written gradient; the others with `slow`."""


assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-7)


def images(dtype=jnp.float32, count=2):
    pixels = np.random.default_rng(0).standard_normal((count, 12, 12, 3))
    return jnp.asarray(pixels, jnp.bfloat16).astype(dtype)


def make_loss(model, variables, x):
    def loss(params):
        logits = logits_in_training(model, variables | {"params": params}, x)
        return -jax.nn.log_softmax(logits)[:, 0].mean()

    return loss


def products(a, b):
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))


@pytest.mark.parametrize("name, changes", SOME)
def test_a_gradients_forward_derivative_is_its_reverse_one(name, changes):
    model, variables = small_network(name, **changes)
    params = variables["params"]
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda p: np.float32(rng.standard_normal(p.shape)), params)
    gradient = jax.grad(make_loss(model, variables, images()))

    @jax.jit
    def both(params):
        forward = jax.jvp(gradient, (params,), (direction,))[1]
        return forward, jax.grad(lambda p: products(gradient(p), direction))(params)

    forward, reverse = both(params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(reverse))
    assert largest > 1e-3
    jax.tree.map(functools.partial(assert_close, atol=1e-4 * largest), forward, reverse)


@pytest.mark.promotes
@pytest.mark.parametrize("name, changes", SOME)
def test_float64_is_double_precision_throughout(name, changes):
    model, variables = small_network(name, **changes)
    with enable_x64(True):
        narrow = jax.jit(jax.grad(make_loss(model, variables, images())))
        doubled = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        wide_loss = make_loss(model, doubled, images(jnp.float64))
        wide = jax.jit(jax.value_and_grad(wide_loss))
        # A float32 value somewhere would be off by far more than a difference quotient.
        rng = np.random.default_rng(2)
        direction = jax.tree.map(
            lambda leaf: rng.standard_normal(leaf.shape), doubled["params"]
        )
        _, found = wide(doubled["params"])
        step = jax.tree.map(lambda d: 1e-8 * d, direction)
        ahead, _ = wide(jax.tree.map(jnp.add, doubled["params"], step))
        behind, _ = wide(jax.tree.map(jnp.subtract, doubled["params"], step))
        slope = (ahead - behind) / 2e-8
        np.testing.assert_allclose(products(found, direction), slope, rtol=1e-4)
        expected = narrow(variables["params"])
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(float)}
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(found))
    jax.tree.map(functools.partial(assert_close, atol=1e-4 * largest), expected, found)


@pytest.mark.parametrize("name", OPTIONS)
def test_parameters_of_bfloat16_get_gradients_of_bfloat16(name):
    model, variables = small_network(name)
    halved = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])
    loss = make_loss(model, variables, images(jnp.bfloat16))
    # Flax's own layers promote.
    with jax.numpy_dtype_promotion("standard"):
        gradients = jax.eval_shape(jax.grad(loss), halved)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {
        jnp.dtype(jnp.bfloat16)
    }
