"""Networks that go to other processes."""

import copy
import pickle

import jax
import numpy as np
import pytest
from small_networks import OPTIONS, small_network

from nfnet_jax.models.network import rematerialized
from nfnet_jax.models.registry import create_model, list_models


def test_every_network_can_be_pickled():
    for name in list_models():
        pickle.dumps(create_model(name, 10))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    "send", [lambda network: pickle.loads(pickle.dumps(network)), copy.deepcopy]
)
def test_what_arrives_computes_the_same(name, send):
    model, variables = small_network(name)
    images = np.random.default_rng(0).standard_normal((1, 32, 32, 3))
    images = images.astype(np.float32)
    there = send(model).clone(name="there")
    expected = jax.jit(model.apply)(variables, images)
    np.testing.assert_array_equal(jax.jit(there.apply)(variables, images), expected)


def test_what_was_changed_stays_changed():
    network = rematerialized(create_model("nf_wrn_10_1", 10, alpha=0.3))
    arrived = pickle.loads(pickle.dumps(network))
    assert all(stage.remat for stage in arrived.stages)
    assert arrived.stages[0].transition.alpha == 0.3
