"""Blocks that are computed again for their gradient: the same values in less memory."""

import chex
import jax
import jax.numpy as jnp
import pytest
from perturbed import perturbed

from nfnet_jax.models.network import rematerialized
from nfnet_jax.models.registry import create_model


def gradients(model, params, images):
    def loss(params):
        rngs = {"dropout": jax.random.key(2)}
        logits = model.apply({"params": params}, images, train=True, rngs=rngs)
        return jnp.mean(logits**2)

    return jax.jit(jax.value_and_grad(loss)).lower(params).compile()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nf_wrn_16_1", {"stochastic_depth": 0.5}),
        ("nfnet_f0", {"depths": (2, 1, 1, 1), "widths": (64,) * 4, "group_width": 32}),
    ],
)
def test_gradients_are_the_same(name, options):
    model = create_model(name, 10, **options)
    images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    params = perturbed(model, (16, 16, 3))
    plain = gradients(model, params, images)(params)
    again = gradients(rematerialized(model), params, images)(params)
    chex.assert_trees_all_close(again, plain, rtol=1e-4, atol=1e-6)


def test_scanned_blocks_take_less_than_half_of_the_memory():
    """By XLA's own analysis; 16 blocks in a stage."""
    model = create_model("nf_wrn_100_1", 10)
    images = jnp.zeros((32, 32, 32, 3))
    params = jax.eval_shape(model.init, jax.random.key(1), images)["params"]
    plain, again = (
        gradients(own, params, images).memory_analysis().temp_size_in_bytes
        for own in (model, rematerialized(model))
    )
    assert again < plain / 2


def test_parameters_keep_their_names_and_air_networks_are_refused():
    model = create_model("nfnet_f0", 10)
    images = jnp.zeros((1, 32, 32, 3))
    trees = [
        jax.eval_shape(own.init, jax.random.key(0), images)
        for own in (model, rematerialized(model))
    ]
    assert trees[0] == trees[1]
    with pytest.raises(ValueError, match="no residual blocks"):
        rematerialized(create_model("nf_air_8", 10))
