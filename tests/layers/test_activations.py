"""γ against closed forms, independent quadrature and samples."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.layers.activations import (
    ACTIVATIONS,
    PUBLISHED_GAIN,
    activation_gain,
    activation_variance,
    scaled_activation,
)


@pytest.mark.parametrize("variance", [1e-4, 1.0, 9.0])
def test_relu_keeps_a_share_of_any_variance(variance):
    share = activation_variance(jax.nn.relu, variance) / variance
    assert share == pytest.approx((1 - 1 / math.pi) / 2, rel=1e-12)


def test_silu_halves_a_small_signal():
    assert activation_variance(jax.nn.silu, 1e-6) == pytest.approx(1e-6 / 4, rel=1e-5)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("kink", [0.0, 0.31, -1.7])
def test_gain_of_a_shifted_kink_is_the_closed_form(slope, kink):
    """Var of max(z, k) + slope · min(z, k), from the truncated normal's moments."""
    density = math.exp(-kink * kink / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + math.erf(kink / math.sqrt(2)))

    # Of z and z² above the kink, φ(k) and 1 − Φ(k) + k φ(k); the rest is below. The
    # function is z + slope · k above the kink and slope · z + k below it.
    mean = square = 0.0
    for factor, offset, moments in (
        (1.0, slope * kink, (1 - below, density, 1 - below + kink * density)),
        (slope, kink, (below, -density, below - kink * density)),
    ):
        mean += factor * moments[1] + offset * moments[0]
        square += factor**2 * moments[2] + 2 * factor * offset * moments[1]
        square += offset**2 * moments[0]
    expected = (square - mean**2) ** -0.5

    def fn(z):
        return jnp.maximum(z, kink) + slope * jnp.minimum(z, kink)

    assert activation_gain(fn) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "name, gain",
    [
        ("relu", 1.712859),
        ("silu", 1.787187),
        ("gelu", 1.700917),
        ("tanh", 1.592537),
        ("elu", 1.270843),
        ("sigmoid", 4.801313),
        ("softplus", 1.919126),
    ],
)
def test_gains_by_independent_quadrature(name, gain):
    assert activation_gain(ACTIVATIONS[name]) == pytest.approx(gain, abs=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_published_gains_are_within_a_thousandth(name):
    ratio = PUBLISHED_GAIN[name] / activation_gain(ACTIVATIONS[name])
    assert ratio == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("gamma, expected", [("exact", 1.0), ("none", 0.34085)])
def test_scaled_activation_under_jit_has_the_variance_of_its_gamma(gamma, expected):
    z = np.random.RandomState(0).standard_normal(2_000_000).astype(np.float32)
    y = jax.jit(scaled_activation("relu", gamma))(z)
    assert np.var(np.asarray(y, np.float64)) == pytest.approx(expected, rel=5e-3)


def test_published_gamma_multiplies_by_the_published_constant():
    y = scaled_activation("gelu", "published")(jnp.float32(3.0))
    tanh = math.tanh(math.sqrt(2 / math.pi) * (3 + 0.044715 * 27))
    assert float(y) == pytest.approx(1.5 * (1 + tanh) * PUBLISHED_GAIN["gelu"], 1e-6)


def test_a_constant_function_has_no_gain():
    with pytest.raises(ValueError, match="has variance (.*) under") as error:
        activation_gain(lambda z: z * 0 + 1)
    # Exactly 0; weights of the quadrature that do not add up to 1 would leave more.
    assert float(re.search("variance (.*) under", str(error.value))[1]) < 1e-24


def test_nor_has_one_that_is_constant_but_for_rounding():
    with pytest.raises(ValueError, match="has variance 1e-14 under"):
        activation_gain(lambda z: 1 + 1e-7 * z)
    assert activation_gain(lambda z: 1 + 1e-5 * z) == pytest.approx(1e5, rel=1e-6)


def test_nor_one_that_is_not_finite():
    with pytest.raises(ValueError, match="has variance nan under"):
        activation_gain(jnp.sqrt)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'rleu'.*relu"):
        scaled_activation("rleu")
    with pytest.raises(ValueError, match="'approx'.*exact"):
        scaled_activation("relu", "approx")
