"""Dropout by example: rate, scale, and that neighbours do not matter."""

import jax
import numpy as np
import pytest

from nfnet_jax.layers.dropout import Dropout, kept

KEY = jax.random.key(3)


def drop(x, examples, rate=0.3):
    rngs = {"dropout": KEY}
    return Dropout(rate).apply({}, x, examples, train=True, rngs=rngs)


def test_values_are_dropped_at_the_rate_and_the_others_scaled():
    y = np.asarray(drop(np.ones((400, 50), np.float32), np.arange(400)))
    assert np.mean(y == 0) == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=1e-6)


def test_an_example_is_treated_alike_in_every_batch():
    x = np.random.RandomState(0).standard_normal((6, 10)).astype("float32")
    together = drop(x, np.arange(20, 26))
    order = np.array([4, 1, 3])
    np.testing.assert_array_equal(drop(x[order], 20 + order), together[order])
    rows = np.asarray(kept(KEY, np.arange(50), 0.5, (40,)))
    assert len(np.unique(rows, axis=0)) == 50, "examples do not share draws"


def test_without_training_or_rate_nothing_is_dropped_and_no_key_needed():
    x = np.ones((2, 3), np.float32)
    assert (Dropout(0.9).apply({}, x, train=False) == x).all()
    assert (Dropout(0.0).apply({}, x, np.arange(2), train=True) == x).all()
