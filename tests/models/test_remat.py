"""Blocks that are computed again for their gradient: the same values, less memory."""

import chex
import jax
import jax.numpy as jnp
import pytest

from nfnet_jax.models.network import rematerialized
from nfnet_jax.models.registry import create_model


def gradients(model, params, images):
    def loss(params):
        rngs = {"dropout": jax.random.key(2)}
        logits = model.apply({"params": params}, images, train=True, rngs=rngs)
        return jnp.mean(logits**2)

    return jax.jit(jax.value_and_grad(loss)).lower(params).compile()


def opened(params):
    """With skip gains that are not 0, so that branches have gradients."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 0.5 if "skip_gain" in str(path) else leaf, params
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nf_wrn_22_1", {"stochastic_depth": 0.5}),
        ("nfnet_f0", {"depths": (2, 1), "widths": (128, 128), "group_width": 32}),
    ],
)
def test_gradients_are_the_same_and_take_less_memory(name, options):
    model = create_model(name, 10, **options)
    images = jax.random.normal(jax.random.key(0), (8, 32, 32, 3))
    params = opened(model.init(jax.random.key(1), images)["params"])
    plain = gradients(model, params, images)
    again = gradients(rematerialized(model), params, images)
    chex.assert_trees_all_close(again(params), plain(params), rtol=1e-4, atol=1e-6)
    memory = [run.memory_analysis().temp_size_in_bytes for run in (plain, again)]
    assert memory[1] < 0.75 * memory[0]


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
