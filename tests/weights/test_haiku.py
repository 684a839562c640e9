"""Converted parameters give the outputs of the published code."""

import functools

import chex
import golden
import jax
import numpy as np
import pytest
from small_networks import small_network

from nfnet_jax import create_model
from nfnet_jax.analysis import measure
from nfnet_jax.layers.dropout import Dropout
from nfnet_jax.models import stage
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights.haiku import from_haiku, to_haiku

MODELS = tuple(golden.OPTIONS)
QUICK = ("nf_resnet50_64", "fixup_resnet50_64")
MARKED = [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in MODELS]


@pytest.mark.parametrize("name", MARKED)
def test_outputs_match_the_reference_and_parameters_return(name):
    tree, images, outputs = golden.load(name)
    model = golden.model_of(name)
    params = from_haiku(tree, model)

    def is_dropout(module, method):
        return isinstance(module, Dropout)

    apply = functools.partial(
        model.apply, capture_intermediates=is_dropout, mutable=["intermediates"]
    )
    logits, captured = jax.jit(apply)({"params": params}, images)
    (pooled,) = captured["intermediates"]["head"]["Dropout_0"]["__call__"]
    for name, found in (("pool", pooled), ("logits", logits)):
        expected = outputs[name]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * scale)
    chex.assert_trees_all_equal(to_haiku(params, model), tree)
    chex.assert_trees_all_equal_dtypes(to_haiku(params, model), tree)


@pytest.mark.parametrize("name", [MARKED[i] for i in (0, 2, 4, 5)])
def test_block_statistics_match_the_reference(name):
    tree, images, outputs = golden.load(name)
    model = golden.model_of(name)
    signal = measure(model, {"params": from_haiku(tree, model)}, images)
    for statistic in ("avg_sq_mean", "avg_var", "res_avg_var"):
        indices = range(sum(key.startswith(f"{statistic}_") for key in outputs))
        expected = [outputs[f"{statistic}_{i}"] for i in indices]
        np.testing.assert_allclose(getattr(signal, statistic), expected, rtol=1e-4)


def test_stacked_parameters_return(monkeypatch):
    monkeypatch.setattr(stage, "UNROLLED_BLOCKS", 0)
    model, variables = small_network("nfnet_f0")
    params = variables["params"]
    assert "blocks" in params["stages_1"]
    tree = to_haiku(params, model)
    chex.assert_trees_all_equal(from_haiku(tree, model), params)


def test_models_that_the_published_code_lacks_are_refused():
    model = create_model("nf_wrn_10_1", 10)
    with pytest.raises(UserError, match="only NFNet"):
        from_haiku({}, model)
