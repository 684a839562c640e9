"""BatchNorm, SkipInit and Fixup networks: sizes, starts, statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax import create_model
from nfnet_jax.analysis import measure
from nfnet_jax.models.statistics import counts

KINDS = ("bn", "skipinit", "fixup")
IMAGES = jax.random.normal(jax.random.key(7), (4, 16, 16, 3))


@functools.cache
def created(name: str):
    model = create_model(name, 10)
    return model, jax.jit(model.init)(jax.random.key(0), IMAGES)


@functools.partial(jax.jit, static_argnames=("model", "train"))
def apply(model, variables, images, train):
    """Logits and updated collections."""
    return model.apply(
        variables,
        images,
        train=train,
        rngs={"dropout": jax.random.key(1)},
        mutable=["batch_stats"],
    )


@pytest.mark.parametrize(
    "name, published", [("bn_wrn_40_2", 2_243_546), ("bn_wrn_28_10", 36_479_194)]
)
def test_wide_resnets_have_the_parameters_of_the_usual_ones(name, published):
    assert counts(create_model(name, 10), (32, 32, 3)).parameters == published


def test_bn_resnet50_differs_from_version_one_by_the_places_of_its_norms():
    """Version 1 has 25,557,032 parameters, a norm after every convolution.

    Version 2 has norms before: of a block's input instead of its output, none after
    stem and projections, and a last one.
    """
    expected, width_in = 25_557_032 - 2 * 64 + 2 * 2048, 64
    for width in (256, 512, 1024, 2048):
        expected += 2 * (width_in - width) - 2 * width
        width_in = width
    parameters = counts(create_model("bn_resnet50", 1000), (64, 64, 3)).parameters
    assert parameters == expected


@pytest.mark.parametrize("kind", KINDS)
def test_only_batch_norm_has_running_statistics(kind):
    model = create_model(f"{kind}_wrn_10_1", 10)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert ("batch_stats" in variables) == (kind == "bn")
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    names = {path[-1].key for path, _ in leaves}
    assert "gain" not in names
    assert ("skip_gain" in names) == (kind == "skipinit")


@pytest.mark.parametrize("kind", ["skipinit", "fixup"])
def test_networks_start_with_zero_logits_and_identity_blocks(kind):
    model, variables = created(f"{kind}_wrn_16_1")
    np.testing.assert_array_equal(apply(model, variables, IMAGES, False)[0], 0)
    variance = measure(model, variables, IMAGES).avg_var
    np.testing.assert_allclose(variance[1::2], variance[2::2], rtol=1e-6)
    assert len(variance) == 7 and (variance > 0).all()


@pytest.mark.parametrize(
    "name, stage, conv, std",
    [
        # sqrt(2 / (features · size²)) · blocks^(-1 / (2 · convolutions - 2))
        ("fixup_resnet50", "stages_3", "conv1", 0.0208333 * 16**-0.25),
        ("fixup_wrn_16_4", "stages_1", "conv0", 0.0416667 * 6**-0.5),
    ],
)
def test_fixup_kernels_shrink_with_the_number_of_blocks(name, stage, conv, std):
    model = create_model(name, 10)

    def kernel(key):
        params = model.init(key, jnp.zeros((1, 16, 16, 3)))["params"]
        return params[stage]["blocks_0"]["branch"][conv]["kernel"]

    measured = jax.jit(kernel)(jax.random.key(0))  # computes only this kernel
    assert float(measured.std()) == pytest.approx(std, rel=0.02)


def test_batch_norm_ignores_the_scale_of_the_images_in_training():
    model, variables = created("bn_wrn_10_1")

    def logits(images):
        return apply(model, variables, images, True)[0]

    np.testing.assert_allclose(logits(10 * IMAGES), logits(IMAGES), atol=1e-4)


def test_batch_norm_mixes_examples_in_training_only():
    model, variables = created("bn_wrn_10_1")
    changed = IMAGES.at[1:].set(3 * IMAGES[1:])

    def first(images, train):
        return apply(model, variables, images, train)[0][0]

    np.testing.assert_allclose(
        first(changed, train=False), first(IMAGES, train=False), rtol=1e-5
    )
    moved = first(changed, train=True) - first(IMAGES, train=True)
    assert np.abs(moved).max() > 1e-3
