"""Squeeze-excite against its formula."""

import jax
import numpy as np

from nfnet_jax.layers.squeeze_excite import SqueezeExcite


def test_squeeze_excite_is_the_formula():
    x = np.random.RandomState(0).standard_normal((2, 4, 5, 6)).astype(np.float32)
    y, variables = SqueezeExcite(3).init_with_output(jax.random.key(0), x)
    p = jax.tree.map(np.asarray, variables["params"])
    mean = x.mean((1, 2))
    hidden = np.maximum(mean @ p["squeeze"]["kernel"] + p["squeeze"]["bias"], 0)
    excite = hidden @ p["excite"]["kernel"] + p["excite"]["bias"]
    expected = 2 / (1 + np.exp(-excite))[:, None, None] * x
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
