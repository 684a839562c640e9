"""Convolutions standardized for correlated pixels, against sums in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.layers.correlated_conv import (
    DECAY,
    POOLED_DECAY,
    CorrelatedConv,
    correlation,
    pooled_conv,
    standardize_correlated,
)
from nfnet_jax.ops.conv import conv2d


def correlated_images(number, side, channels, decay, seed=0):
    """Gaussian images of variance 1, whose pixels correlate by exp(-decay · d)."""
    noise = np.random.default_rng(seed).normal(size=(side**2, number * channels))
    root = np.linalg.cholesky(np.asarray(correlation(side, side, decay), np.float64))
    images = (root @ noise).reshape(side, side, number, channels)
    return jnp.asarray(images.transpose(2, 0, 1, 3), jnp.float32)


@pytest.fixture
def kernel():
    """A smooth one, which plain standardization takes for a small one."""
    noise = np.random.default_rng(0).normal(size=(1, 1, 6, 16))
    return jnp.asarray(
        noise + 0.5 * np.random.default_rng(1).normal(size=(3, 3, 6, 16))
    )


def test_standardized_filters_by_their_formula(kernel):
    result = np.asarray(standardize_correlated(kernel, 0.7))
    for filter, found in zip(
        np.moveaxis(np.asarray(kernel, np.float64), -1, 0),
        np.moveaxis(result, -1, 0),
        strict=True,
    ):
        centred = filter - filter.mean()
        variance = sum(
            np.exp(-0.7 * np.hypot(i - k, j - m)) * centred[i, j] @ centred[k, m]
            for i, j, k, m in itertools.product(range(3), repeat=4)
        )
        np.testing.assert_allclose(found, centred / np.sqrt(variance), rtol=2e-5)


def test_outputs_have_unit_variance_for_correlated_images(kernel):
    x = correlated_images(400, 5, 6, 0.7)
    y = np.asarray(conv2d(x, standardize_correlated(kernel, 0.7), padding="VALID"))
    np.testing.assert_allclose((y**2).mean(), 1, atol=0.03)


def test_pooled_decay_is_that_of_averages():
    """Along a row: the covariances of (a + b, b + c) where pixels have DECAY."""
    rho = np.exp(-DECAY * np.arange(3))
    neighbours = (1 + 2 * rho[1] + rho[2]) / (2 + 2 * rho[1])
    np.testing.assert_allclose(np.exp(-POOLED_DECAY), neighbours, atol=0.01)


def test_scaled_weight_standardization_is_the_case_of_no_correlation(kernel):
    found = np.asarray(standardize_correlated(kernel, 100.0), np.float64)
    flat = found.reshape(-1, 16)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose((flat**2).sum(0), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (9, 7), (2, 3)])
def test_pooled_convolution_is_pooling_of_the_convolution(shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *shape, 5)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 5, 4)), jnp.float32)
    y = conv2d(x, kernel)
    height, width = (pixels // 2 for pixels in shape)
    y = y[:, : height * 2, : width * 2]
    expected = y.reshape(2, height, 2, width, 2, 4).mean((2, 4))
    np.testing.assert_allclose(pooled_conv(x, kernel), expected, rtol=1e-4, atol=1e-5)


def test_module_standardizes_unless_told_not_to():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    for pool in (True, False):
        standardized = CorrelatedConv(4, pool=pool)
        variables = standardized.init(jax.random.key(1), x)
        plain = CorrelatedConv(4, pool=pool, standardized=False)
        kernel = standardize_correlated(
            variables["params"]["kernel"], POOLED_DECAY if pool else DECAY
        )
        np.testing.assert_allclose(
            standardized.apply(variables, x),
            plain.apply({"params": {"kernel": kernel}}, x),
            rtol=1e-5,
            atol=1e-6,
        )
