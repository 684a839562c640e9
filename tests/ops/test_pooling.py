"""Pooling against NumPy, at odd sizes too, and its gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.layers.ws_conv import AveragePool
from nfnet_jax.ops.pooling import max_pool


@pytest.mark.parametrize("height, width", [(4, 6), (5, 4), (7, 3), (1, 1)])
def test_average_pooling_divides_by_real_pixels_at_the_edge(height, width):
    x = np.random.RandomState(0).standard_normal((2, height, width, 3))
    expected = np.empty((2, -(-height // 2), -(-width // 2), 3))
    for i in range(expected.shape[1]):
        for j in range(expected.shape[2]):
            window = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            expected[:, i, j] = window.mean((1, 2))
    pooled = AveragePool()(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


@pytest.mark.parametrize("size", [4, 5])
def test_max_pooling_pads_with_minus_infinity(size):
    x = -1.0 - np.random.RandomState(0).random((1, size, size, 2))
    pad = max(3 + 2 * ((size - 1) // 2) - size, 0)
    padded = np.pad(
        x,
        ((0, 0), (pad // 2, pad - pad // 2), (pad // 2, pad - pad // 2), (0, 0)),
        constant_values=-np.inf,
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    pooled = max_pool(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(pooled, windows[:, ::2, ::2].max((-1, -2)), rtol=1e-6)


@pytest.mark.parametrize("height, width", [(4, 6), (5, 4), (7, 3), (1, 1)])
@pytest.mark.parametrize("padding", ["SAME", "symmetric"])
def test_gradient_of_max_pooling_goes_to_the_first_maximum(height, width, padding):
    """Whole numbers have many equal maxima: `lax` gives them to the first as well."""
    rng = np.random.RandomState(0)
    x = jnp.asarray(rng.randint(-2, 3, (2, height, width, 3)), jnp.float32)
    pads = padding if padding == "SAME" else ((1, 1), (1, 1))
    expected, expected_vjp = jax.vjp(lambda x: nn.max_pool(x, (3, 3), (2, 2), pads), x)
    pooled, vjp = jax.vjp(lambda x: max_pool(x, padding), x)
    grad = jnp.asarray(rng.randint(1, 9, expected.shape), jnp.float32)
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_array_equal(vjp(grad)[0], expected_vjp(grad)[0])
