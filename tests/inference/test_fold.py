"""Folded networks compute the same logits and standardize nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturbed import perturbed

from nfnet_jax import create_model
from nfnet_jax.inference.fold import fold, is_foldable
from nfnet_jax.models.network import Spec
from nfnet_jax.utils.errors import UserError

RESNET = {"depths": (1, 2), "widths": (32, 64)}
REGNET = {"depths": (1, 2), "widths": (48, 104), "width_multiplier": 0.5}
NFNET = {"depths": (1, 1, 1, 1), "widths": (32, 64, 64, 64), "group_width": 16}
CASES = [
    ("nf_wrn_16_1", {"activation": "silu", "gamma": "published"}, 17),
    ("nf_wrn_46_1", {"activation": "gelu", "alpha": 0.5, "beta": "var"}, 16),
    ("nf_bottleneck_1_4", {"activation": "tanh"}, 16),
    ("nf_resnet50", RESNET | {"se_ratio": 0.25}, 32),
    ("nf_resnet50", RESNET | {"se_ratio": 0.25, "skip_gain": False}, 33),
    ("timm_nf_resnet50", RESNET, 33),
    ("nf_regnet_b0", REGNET, 32),
    ("nf_regnet_b0", REGNET, 33),
    ("nfnet_f0", NFNET, 32),
    ("dm_nfnet_f0", NFNET, 33),
    ("eca_nfnet_l0", NFNET | {"group_width": 8}, 33),
    ("nf_wrn_10_1", {"pooled": True, "pool_gain": 2.0, "raw_shortcut": True}, 17),
    ("skipinit_wrn_10_1", {"activation": "silu", "alpha": 0.1}, 16),
]


def images(size, batch=2):
    rng = np.random.default_rng(1)
    return rng.standard_normal((batch, size, size, 3)).astype(np.float32)


def worst(found, expected) -> float:
    """Largest error, relative to the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "overrides", "size"), CASES, ids=[f"{c[0]} {c[2]}" for c in CASES]
)
def test_logits_are_the_same_without_standardization(name, overrides, size):
    model = create_model(name, 10, **overrides)
    params = perturbed(model, (size, size, 3))
    folded, folded_params = fold(model, params)

    def apply(params, images):
        return folded.apply({"params": params}, images)

    x = images(size)
    expected = jax.jit(model.apply)({"params": params}, x)
    trace = jax.jit(apply).trace(folded_params, x)
    found = trace.lower().compile()(folded_params, x)
    assert worst(found, expected) <= 1e-5
    assert np.std(expected) > 0
    assert "rsqrt" not in str(trace.jaxpr)
    shapes = jax.eval_shape(folded.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, folded_params) == jax.tree.map(jnp.shape, shapes)
    assert "'gain'" not in str(shapes)


def test_the_scales_are_where_they_belong():
    """In a projection γ / β, in the classifier γ, at the end of a branch α · gain."""
    model = create_model("nf_wrn_10_1", 10)
    params = perturbed(model, (8, 8, 3))
    _, folded = fold(model, params)
    gamma = np.sqrt(2 / (1 - 1 / np.pi))
    np.testing.assert_allclose(
        folded["head"]["classifier"]["kernel"],
        gamma * params["head"]["classifier"]["kernel"],
        rtol=1e-6,
    )
    block = params["stages_1"]["transition"]
    beta = np.sqrt(1.04)
    shortcut, folded_shortcut = (
        block["shortcut"],
        folded["stages_1"]["transition"]["shortcut"],
    )
    norms = np.linalg.norm(folded_shortcut["kernel"].reshape(-1, 32), axis=0)
    np.testing.assert_allclose(
        norms, gamma / beta * np.abs(shortcut["gain"]), rtol=1e-5
    )
    np.testing.assert_array_equal(folded_shortcut["bias"], shortcut["bias"])
    np.testing.assert_allclose(
        folded["stages_1"]["transition"]["branch"]["conv1"]["bias"],
        0.2 * block["skip"]["skip_gain"] * block["branch"]["conv1"]["bias"],
        rtol=1e-6,
    )


def test_pooled_features_are_gamma_times_smaller():
    model = create_model("nf_wrn_10_1", 10, gamma="published")
    params = perturbed(model, (8, 8, 3))
    folded, folded_params = fold(model, params)

    def pooled(model, params):
        apply = functools.partial(model.apply, features=True)
        return jax.jit(apply)({"params": params}, images(8))

    features, smaller = pooled(model, params), pooled(folded, folded_params)
    assert worst(1.7139588594436646 * smaller, features) < 1e-5


def test_bfloat16_images():
    model = create_model("nf_wrn_10_1", 10, activation="gelu")
    params = perturbed(model, (8, 8, 3))
    folded, folded_params = fold(model, params)
    x = images(8, batch=8)
    expected = jax.jit(model.apply)({"params": params}, x)
    halved = jax.jit(folded.apply)({"params": folded_params}, x.astype(jnp.bfloat16))
    assert halved.dtype == jnp.float32
    assert worst(halved, expected) < 0.05


def test_folding_twice_changes_nothing():
    model = create_model("nf_wrn_10_1", 10)
    folded, params = fold(model, perturbed(model, (8, 8, 3)))
    jax.tree.map(np.testing.assert_array_equal, fold(folded, params)[1], params)


@pytest.mark.parametrize("name", ["bn_wrn_10_1", "fixup_wrn_10_1"])
def test_other_baselines_are_refused(name):
    model = create_model(name, 10)
    assert not is_foldable(model)
    with pytest.raises(UserError, match=f"{name} cannot be folded"):
        fold(model, {})


def test_a_network_without_spec_is_refused():
    with pytest.raises(UserError, match="create_model"):
        fold(create_model("nf_wrn_10_1", 10).clone(spec=Spec("", 0)), {})
