"""timm's parameters give timm's logits."""

import chex
import golden
import jax
import numpy as np
import pytest
import timm_reference
from perturbed import perturbed

from nfnet_jax import create_model
from nfnet_jax.models import stage
from nfnet_jax.models.registry import list_models
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights.timm import from_timm, to_timm

SMALL = {"depths": (1, 1), "widths": (32, 64)}
QUICK = ("eca_nfnet_l0", "nf_seresnet50")
CASES = [
    pytest.param(name, 64, marks=[pytest.mark.slow] * (name not in QUICK))
    for name in timm_reference.MODELS
] + [pytest.param("nf_regnet_b1", 65, marks=pytest.mark.slow)]
"""At even sizes "SAME" and "symmetric" differ; at odd ones averages have edges."""


def model_of(name: str, **overrides):
    ours = f"timm_{name}" if list_models(f"timm_{name}") else name
    return create_model(ours, 1000, **overrides)


def state_dict(model) -> dict[str, np.ndarray]:
    """Names and shapes are ours, so wrong ones are filled with other numbers."""
    arrays = to_timm(perturbed(model, (64, 64, 3)), model)
    return {name: timm_reference.fill(name, arrays[name].shape) for name in arrays}


def relative_error(found, expected) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def expected():
    return dict(np.load(golden.GOLDEN / "timm.npz"))


@pytest.mark.parametrize(("name", "size"), CASES)
def test_logits_match_timm_and_parameters_return(name, size, expected):
    model = model_of(name)
    published = state_dict(model)
    params = from_timm(published, model)
    logits = jax.jit(model.apply)({"params": params}, timm_reference.images(size))
    assert relative_error(logits, expected[f"{name}_{size}"]) < 1e-4
    chex.assert_trees_all_equal(to_timm(params, model), published)
    chex.assert_trees_all_equal_dtypes(to_timm(params, model), published)


def test_every_convention_of_timm_is_visible():
    """A wrong one would fail the tests of logits, whose tolerance is 1e-4."""
    model = model_of("nf_resnet50", **SMALL)
    params = {"params": perturbed(model, (64, 64, 3))}
    images = timm_reference.images(64)
    logits = jax.jit(model.apply)(params, images)
    for option in (
        {"padding": "SAME"},
        {"gamma_in_kernel": False},
        {"var_eps": 0.0},
        {"gamma": "exact"},
    ):
        changed = model_of("nf_resnet50", **SMALL, **option)
        other = jax.jit(changed.apply)(params, images)
        assert relative_error(other, logits) > 3e-4, option


def test_stacked_parameters_return(monkeypatch):
    monkeypatch.setattr(stage, "UNROLLED_BLOCKS", 0)
    model = model_of("nf_regnet_b1", width_multiplier=0.125)
    published = state_dict(model)
    params = from_timm(published, model)
    assert "blocks" in params["stages_0"]
    chex.assert_trees_all_equal(to_timm(params, model), published)


def test_models_that_timm_lacks_are_refused():
    with pytest.raises(UserError, match="timm has no"):
        from_timm({}, create_model("bn_resnet50", 10))


def test_entries_that_do_not_fit_are_listed_by_name():
    model = model_of("nf_resnet50", width_multiplier=0.125)
    state = state_dict(model)

    def refuses(changed, *words):
        with pytest.raises(UserError) as error:
            from_timm(changed, model)
        for word in words:
            assert word in str(error.value)

    refuses(state | {"stem.extra": np.zeros(3)}, "unknown", "stem.extra")
    without = {k: v for k, v in state.items() if not k.startswith("stages.1.2.")}
    refuses(without, "missing", "stages.1.2.conv1.bias", "and 4 more")
    head = {"head.fc.weight": np.zeros((10, 2048)), "head.fc.bias": np.zeros(10)}
    refuses(state | head, "misshapen", "head.fc.bias (10,), expected (1000,)")
