"""timm's parameters give what timm computes with them."""

import chex
import golden
import jax
import numpy as np
import pytest
import timm_reference

from nfnet_jax import create_model
from nfnet_jax.models import stage
from nfnet_jax.models.registry import list_models
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights import timm


def model_of(name: str, **overrides):
    ours = f"timm_{name}" if list_models(f"timm_{name}") else name
    return create_model(ours, 1000, **overrides)


def state_dict(model) -> dict[str, np.ndarray]:
    """Names and shapes are ours, so wrong ones are filled with other numbers."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return {
        name: timm_reference.fill(name, array.shape)
        for name, array in timm.to_timm(zeros, model).items()
    }


def relative_error(found, expected) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def expected():
    return dict(np.load(golden.GOLDEN / "timm.npz"))


@pytest.mark.parametrize("name", timm_reference.MODELS)
def test_logits_match_timm_at_even_and_odd_sizes(name, expected):
    model = model_of(name)
    params = timm.convert(state_dict(model), model)
    for size in timm_reference.SIZES:
        images = timm_reference.images(size)
        logits = jax.jit(model.apply)({"params": params}, images)
        assert relative_error(logits, expected[f"{name}_{size}"]) < 1e-4


@pytest.mark.parametrize(
    "option",
    [
        {"padding": "SAME"},
        {"gamma_in_kernel": False},
        {"var_eps": 0.0},
        {"gamma": "exact"},
    ],
    ids=str,
)
def test_every_convention_of_timm_is_visible(option, expected):
    params = timm.convert(state_dict(model_of("nf_resnet50")), model_of("nf_resnet50"))
    changed = model_of("nf_resnet50", **option)
    logits = jax.jit(changed.apply)({"params": params}, timm_reference.images(64))
    assert relative_error(logits, expected["nf_resnet50_64"]) > 3e-4


@pytest.mark.parametrize("name", timm_reference.MODELS)
def test_round_trip_is_bit_equal(name):
    model = model_of(name)
    published = state_dict(model)
    back = timm.to_timm(timm.convert(published, model), model)
    assert back.keys() == published.keys()
    for key, array in published.items():
        np.testing.assert_array_equal(back[key], array)
        assert back[key].dtype == array.dtype


def test_stacked_parameters_convert_as_well(expected, monkeypatch):
    monkeypatch.setattr(stage, "UNROLLED_BLOCKS", 0)
    model = model_of("nf_regnet_b1")
    published = state_dict(model)
    params = timm.convert(published, model)
    assert "blocks" in params["stages_0"]
    logits = jax.jit(model.apply)({"params": params}, timm_reference.images(64))
    assert relative_error(logits, expected["nf_regnet_b1_64"]) < 1e-4
    chex.assert_trees_all_equal(timm.to_timm(params, model), published)


def test_models_that_timm_lacks_are_refused():
    with pytest.raises(UserError, match="timm has no"):
        timm.convert({}, create_model("bn_resnet50", 10))


def test_entries_that_do_not_fit_are_listed_by_name():
    model = model_of("nf_resnet50")
    state = state_dict(model)

    def refuses(changed, *words):
        with pytest.raises(UserError) as error:
            timm.convert(changed, model)
        for word in words:
            assert word in str(error.value)

    refuses(state | {"stem.extra": np.zeros(3)}, "unknown", "stem.extra")
    without = {k: v for k, v in state.items() if not k.startswith("stages.1.2.")}
    refuses(without, "missing", "stages.1.2.conv1.bias", "and 4 more")
    head = {"head.fc.weight": np.zeros((10, 2048)), "head.fc.bias": np.zeros(10)}
    refuses(state | head, "misshapen", "head.fc.bias (10,), expected (1000,)")
