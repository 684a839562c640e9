"""The networks of the speedrun, at initialization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.models.nf_air import whitening_kernel
from nfnet_jax.models.registry import create_model
from nfnet_jax.models.statistics import multiply_adds
from nfnet_jax.utils.errors import UserError


@pytest.fixture(scope="module")
def images():
    """Smooth random images, so that neighbouring pixels are correlated."""
    noise = jax.random.normal(jax.random.key(0), (64, 13, 13, 3))
    return (noise[:, :-1] + noise[:, 1:])[:, :, :-1] + 0.5 * noise[:, :-1, 1:, :1]


def test_whitening_has_uncorrelated_outputs_of_unit_variance(images):
    kernel = np.asarray(whitening_kernel(images), np.float64)
    assert kernel.shape == (2, 2, 3, 24)
    windows = np.lib.stride_tricks.sliding_window_view(images, (2, 2), axis=(1, 2))
    outputs = np.einsum("nhwcij,ijco->nhwo", windows, kernel).reshape(-1, 24)
    covariance = np.cov(outputs[:, :12], rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(12), atol=0.01)
    np.testing.assert_allclose(kernel[..., 12:], -kernel[..., :12])


def test_first_images_set_the_moments_of_every_convolution(images):
    model = create_model("nf_air_4", 10)
    variables = model.init(jax.random.key(1), images)
    _, state = model.apply(
        variables,
        images,
        capture_intermediates=lambda module, _: (module.name or "").startswith("mom"),
    )
    outputs = jax.tree.leaves(state["intermediates"])
    assert len(outputs) == 7
    for output in outputs:
        np.testing.assert_allclose(output.mean((0, 1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(output.std((0, 1, 2)), 1, rtol=1e-3)


def test_nothing_is_normalized_after_initialization(images):
    """An example's logits do not depend on the others in its batch."""
    model = create_model("nf_air_4", 10)
    variables = model.init(jax.random.key(1), images)
    assert "batch_stats" not in variables
    variables = {"params": variables["params"]}
    together = model.apply(variables, images, train=True)
    alone = model.apply(variables, images[:1], train=True)
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)


def test_initialization_without_images_is_finite():
    model = create_model("nf_air_4", 10)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 12, 12, 3)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


def test_multiply_adds_by_hand():
    w = 64
    whitening = 31**2 * 4 * 3 * 24
    first = 15**2 * 9 * 24 * w + 15**2 * 9 * w * w
    second = 7**2 * 9 * w * 4 * w + 7**2 * 9 * (4 * w) ** 2
    third = 3**2 * 9 * (4 * w) ** 2 + 3**2 * 9 * (4 * w) ** 2
    expected = whitening + first + second + third + 4 * w * 10
    assert multiply_adds(create_model("nf_air_64", 10), (32, 32, 3)) == expected


def test_width_is_checked():
    with pytest.raises(ValueError, match="width 0: expected at least 1"):
        create_model("nf_air_0", 10)


def test_images_that_pooling_leaves_nothing_of():
    model = create_model("nf_air_4", 10)
    images = jnp.zeros((1, 9, 9, 3))
    variables = model.init(jax.random.key(1), images)
    assert model.apply(variables, images).shape == (1, 10)
    with pytest.raises(UserError, match="images of 8x9 pixels .* at least 9x9"):
        model.init(jax.random.key(1), images[:, 1:])
