"""Affine signals against the sums that they stand for."""

import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.layers.affine import Affine


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_sums_hold_for_any_scale_of_the_other(scale):
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, 2, 3, 3, 4)).astype(np.float32)
    shift = np.arange(4, dtype=np.float32)[None, None, None]
    signal = Affine(jnp.asarray(x), 1.0, jnp.asarray(shift)).times(2.0)
    found = signal.added_to(Affine(jnp.asarray(other), scale, jnp.asarray(shift)))
    expected = 2 * (x + shift) + scale * other + shift
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    means = (2 * (x + shift)).mean((1, 2))
    np.testing.assert_allclose(signal.means(), means, rtol=1e-5, atol=1e-5)
