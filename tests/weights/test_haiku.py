"""Converted parameters give what the published code computes with them."""

import functools

import chex
import golden
import jax
import numpy as np
import pytest

from nfnet_jax import create_model
from nfnet_jax.analysis import measure
from nfnet_jax.models import stage
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights import haiku

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
def test_outputs_and_block_statistics_match_the_reference(name):
    tree, images, outputs = golden.load(name)
    model = model_of(name)
    params = haiku.convert(tree, model)
    logits = jax.jit(model.apply)({"params": params}, images)
    scale = np.abs(outputs["logits"]).max()
    np.testing.assert_allclose(logits, outputs["logits"], rtol=1e-4, atol=1e-4 * scale)
    features = jax.jit(functools.partial(model.apply, features=True))
    # The features of Fixup have its last bias already.
    pool = features({"params": params}, images) - params["head"].get("bias2", 0.0)
    np.testing.assert_allclose(
        pool, outputs["pool"], rtol=1e-4, atol=1e-4 * outputs["pool"].max()
    )
    signal = measure(model, {"params": params}, images)
    for statistic in ("avg_sq_mean", "avg_var", "res_avg_var"):
        np.testing.assert_allclose(
            getattr(signal, statistic),
            golden.statistics(outputs, statistic),
            rtol=1e-4,
        )


@pytest.mark.parametrize("name", MODELS)
def test_round_trip_is_bit_equal(name):
    tree, _, _ = golden.load(name)
    model = model_of(name)
    back = haiku.to_haiku(haiku.convert(tree, model), model)
    assert back.keys() == tree.keys()
    for module, arrays in tree.items():
        assert back[module].keys() == arrays.keys()
        for key, array in arrays.items():
            np.testing.assert_array_equal(back[module][key], array)
            assert back[module][key].dtype == array.dtype


@pytest.mark.parametrize("name", ["nfnet_f0_64", "fixup_resnet50_64"])
def test_stacked_parameters_convert_as_well(name, monkeypatch):
    monkeypatch.setattr(stage, "UNROLLED_BLOCKS", 0)
    tree, images, outputs = golden.load(name)
    model = model_of(name)
    params = haiku.convert(tree, model)
    assert len(params["stages_3"]["blocks"]["branch"]["conv0"]["kernel"]) == 2
    logits = jax.jit(model.apply)({"params": params}, images)
    scale = np.abs(outputs["logits"]).max()
    np.testing.assert_allclose(logits, outputs["logits"], atol=1e-4 * scale)
    chex.assert_trees_all_equal(haiku.to_haiku(params, model), tree)


def test_models_that_the_published_code_lacks_are_refused():
    model = create_model("nf_wrn_10_1", 10)
    with pytest.raises(UserError, match="only NFNet"):
        haiku.convert({}, model)


def test_exact_gamma_differs_from_the_published_one():
    tree, images, outputs = golden.load("nf_resnet50_64")
    model = create_model("nf_resnet50", 1000)
    logits = model.apply({"params": haiku.convert(tree, model)}, images)
    worst = np.abs(logits - outputs["logits"]).max() / np.abs(outputs["logits"]).max()
    assert 1e-3 < worst < 5e-2


def test_entries_that_do_not_fit_are_listed_by_name():
    tree, _, _ = golden.load("nf_resnet50_64")
    model = create_model("nf_resnet50", 1000)

    def refuses(changed, *words):
        with pytest.raises(UserError) as error:
            haiku.convert(changed, model)
        for word in words:
            assert word in str(error.value)

    refuses(tree | {"NF_ResNet/~/extra": {"w": np.zeros(1)}}, "unknown", "extra:w")
    refuses(tree | {"NF_ResNet/~/nf_res_block_99": {"skip_gain": np.zeros(())}}, "_99")
    without = {k: v for k, v in tree.items() if k != "NF_ResNet/~/nf_res_block_4"}
    refuses(without, "missing", "NF_ResNet/~/nf_res_block_4:skip_gain")
    head = {"w": np.zeros((2048, 10)), "b": np.zeros(10)}
    refuses(tree | {"NF_ResNet/~/linear": head}, "misshapen", "(1000,)")
