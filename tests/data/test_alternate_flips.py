"""Flips in every other epoch."""

import jax
import jax.numpy as jnp
import numpy as np

from nfnet_jax.data.augment import shrink
from nfnet_jax.data.augment.crops import alternate_flips


def flips(epoch):
    indices = jnp.arange(1000)
    draws = alternate_flips(jax.random.key(0), indices, jnp.full(1000, epoch, "uint32"))
    return np.asarray(draws) < 0.5


def test_every_image_changes_sides_each_epoch():
    np.testing.assert_array_equal(flips(0), ~flips(1))
    np.testing.assert_array_equal(flips(0), flips(2))


def test_half_of_the_images_start_mirrored():
    assert 430 < flips(0).sum() < 570


def test_an_image_keeps_its_side_wherever_it_stands_in_a_batch():
    indices = jnp.array([5, 900, 17])
    epochs = jnp.array([0, 1, 2], "uint32")
    draws = alternate_flips(jax.random.key(0), indices, epochs) < 0.5
    first = flips(0)
    np.testing.assert_array_equal(draws, [first[5], ~first[900], first[17]])


def test_shrinking_by_half_weighs_pixels_by_a_triangle():
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
    weights = np.array([1, 3, 3, 1]) / 8
    kernel = np.outer(weights, weights)
    window = image[0, 1:5, 3:7, 0]
    found = shrink(jnp.asarray(image), 4)[0, 1, 2, 0]
    np.testing.assert_allclose(found, (window * kernel).sum(), rtol=1e-5)
