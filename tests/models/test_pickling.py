"""Networks that go to other processes."""

import copy
import pickle

import jax
import numpy as np
import pytest
from small_networks import small_network

from nfnet_jax.models.network import rematerialized
from nfnet_jax.models.registry import create_model, list_models


def test_every_network_can_be_pickled():
    for name in list_models():
        pickle.dumps(create_model(name, 10))


@pytest.mark.parametrize("name", ["nf_regnet_b0", "nf_air_16", "bn_wrn_10_1"])
def test_what_arrives_computes_the_same(name):
    model, variables = small_network(name)
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    expected = jax.jit(model.apply)(variables, images)
    for arrived in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        found = jax.jit(arrived.clone(name="there").apply)(variables, images)
        np.testing.assert_array_equal(found, expected)


def test_what_was_changed_stays_changed():
    network = rematerialized(create_model("nf_wrn_10_1", 10, alpha=0.3))
    arrived = pickle.loads(pickle.dumps(network))
    assert all(stage.remat for stage in arrived.stages)
    assert arrived.stages[0].transition.alpha == 0.3
