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

MODELS = {
    "nf_resnet50_64": {"name": "nf_resnet50", "gamma": "published"},
    "nf_seresnet50_65": {
        "name": "nf_resnet50",
        "se_ratio": 0.25,
        "activation": "silu",
        "gamma": "published",
    },
    "nfnet_f0_64": {"name": "nfnet_f0", "gamma": "published"},
    "nf_regnet_b0_64": {"name": "nf_regnet_b0", "gamma": "published"},
    "skipinit_resnet50_64": {"name": "skipinit_resnet50"},
    "fixup_resnet50_64": {"name": "fixup_resnet50"},
}


def model_of(golden_name: str):
    return create_model(num_classes=1000, **MODELS[golden_name])


@pytest.mark.parametrize("name", MODELS)
def test_outputs_match_the_reference_and_parameters_return(name):
    tree, images, outputs = golden.load(name)
    model = model_of(name)
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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n != "nf_resnet50_64"))
        for n in MODELS
    ],
)
def test_block_statistics_match_the_reference(name):
    tree, images, outputs = golden.load(name)
    model = model_of(name)
    signal = measure(model, {"params": from_haiku(tree, model)}, images)
    for statistic in ("avg_sq_mean", "avg_var", "res_avg_var"):
        found, expected = (
            getattr(signal, statistic),
            golden.statistics(outputs, statistic),
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
def test_exact_gamma_differs_from_the_published_one():
    tree, images, outputs = golden.load("nf_resnet50_64")
    model = create_model("nf_resnet50", 1000)
    logits = jax.jit(model.apply)({"params": from_haiku(tree, model)}, images)
    worst = np.abs(logits - outputs["logits"]).max() / np.abs(outputs["logits"]).max()
    assert 1e-3 < worst < 5e-2


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


def test_entries_that_do_not_fit_are_listed_by_name():
    model, variables = small_network("nf_resnet50")
    tree = to_haiku(variables["params"], model)

    def refuses(changed, *words):
        with pytest.raises(UserError) as error:
            from_haiku(tree | changed, model)
        for word in words:
            assert word in str(error.value)

    refuses({"NF_ResNet/~/extra": {"w": np.zeros(1)}}, "unknown", "extra:w")
    refuses({"NF_ResNet/~/nf_res_block_99": {"skip_gain": np.zeros(())}}, "_99")
    refuses({"NF_ResNet/~/nf_res_block_3": {}}, "missing", "_res_block_3:skip_gain")
    refuses(
        {"NF_ResNet/~/linear": {"w": np.zeros((9, 10)), "b": np.zeros(10)}},
        "misshapen",
        "(5,)",
    )
