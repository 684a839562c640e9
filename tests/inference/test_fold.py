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
NFNET = {"depths": (1,) * 4, "widths": (32,) * 4, "group_width": 8}
CASES = [
    ("nf_wrn_46_1", {"activation": "gelu", "alpha": 0.5, "beta": "var"}, 8),
    ("nf_wrn_10_1", {"pooled": True, "pool_gain": 2.0, "raw_shortcut": True}, 9),
    ("nf_bottleneck_1_4", {"activation": "tanh", "gamma": "published"}, 8),
    ("nf_resnet50", RESNET | {"se_ratio": 0.25, "skip_gain": False}, 33),
    ("timm_nf_resnet50", RESNET, 33),
    ("nf_regnet_b0", REGNET, 32),
    ("dm_nfnet_f0", NFNET, 33),
    ("eca_nfnet_l0", NFNET, 32),
    ("skipinit_wrn_10_1", {"activation": "silu", "alpha": 0.1}, 8),
]


def images(size, batch=2):
    rng = np.random.default_rng(1)
    return rng.standard_normal((batch, size, size, 3)).astype(np.float32)


def worst(found, expected) -> float:
    """Largest error, relative to the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "overrides", "size"), CASES, ids=[case[0] for case in CASES]
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


def test_pooled_features_are_gamma_times_smaller():
    model = create_model("nf_wrn_10_1", 10, gamma="published")
    params = perturbed(model, (8, 8, 3))
    folded, folded_params = fold(model, params)

    def pooled(model, params):
        apply = functools.partial(model.apply, features=True)
        return jax.jit(apply)({"params": params}, images(8))

    features, smaller = pooled(model, params), pooled(folded, folded_params)
    assert worst(1.7139588594436646 * smaller, features) < 1e-5


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
