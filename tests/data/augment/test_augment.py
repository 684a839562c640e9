"""Augmentations of normalized images, and the keys of all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.config import base_config
from nfnet_jax.data.augment import (
    check_augmentation,
    cutout,
    erase,
    erased_mask,
    normalize,
    shrink,
)
from nfnet_jax.utils.errors import UserError

IMAGES = np.random.RandomState(0).randint(0, 256, (5, 8, 6, 3)).astype(np.uint8)


def test_normalized_data_has_mean_zero_and_variance_one():
    scaled = IMAGES / 255.0
    mean, std = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
    x = np.asarray(jax.jit(normalize)(IMAGES, mean, std), float)
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(x.var((0, 1, 2)), 1, rtol=1e-5)


def test_cutout_zeroes_one_square_clipped_at_the_borders():
    places = [(0, 0), (3, 5), (7, 2)]
    draws = np.float32([[row / 8 + 0.01, column / 6 + 0.01] for row, column in places])
    cut = jax.jit(functools.partial(cutout, size=4))
    result = cut(np.ones((3, 8, 6, 2), np.float32), draws)
    for found, (row, column) in zip(result, places, strict=True):
        expected = np.ones((8, 6, 2))
        expected[max(0, row - 2) : row + 2, max(0, column - 2) : column + 2] = 0
        np.testing.assert_array_equal(found, expected)


def uniform(seed, shape):
    return np.random.RandomState(seed).uniform(size=shape).astype(np.float32)


def test_erasing_zeroes_rectangles_of_a_share_of_the_images():
    images = np.ones((10_000, 12, 10, 1), np.float32)
    erased = jax.jit(functools.partial(erase, probability=0.25))
    result = np.asarray(erased(images, uniform(0, (10_000, 5))))[..., 0] == 0
    erased = result.any((1, 2))
    assert abs(erased.mean() - 0.25) < 3 * np.sqrt(0.25 * 0.75 / 10_000)
    holes = result[erased]
    rows, columns = holes.any(2), holes.any(1)
    np.testing.assert_array_equal(holes, rows[:, :, None] & columns[:, None])
    for shown in (rows, columns):
        edges = np.diff(np.pad(shown.astype(int), [(0, 0), (1, 1)]))
        assert np.all(np.abs(edges).sum(1) == 2)


def test_erased_rectangles_have_uniform_areas_and_log_uniform_aspects():
    def sides(draw):
        hole = erased_mask(draw, (400, 400))
        return hole.any(1).sum(), hole.any(0).sum()

    found = jax.jit(jax.vmap(sides))(uniform(1, (1000, 4)))
    rows, columns = np.asarray(found, float)
    area, aspect = rows * columns / 400**2, np.log(rows / columns)
    # The longest rectangles of the largest areas do not fit in a square image.
    fits = np.maximum(rows, columns) < 400
    assert fits.mean() > 0.99
    assert 0.0195 < area.min() and area.max() < 0.335
    spread = (1 / 3 - 0.02) / np.sqrt(12)
    assert abs(area.mean() - (1 / 3 + 0.02) / 2) < 3 * spread / np.sqrt(1000)
    spread = 2 * np.log(1 / 0.3) / np.sqrt(12)
    assert abs(aspect.mean()) < 3 * spread / np.sqrt(1000)
    assert aspect.std() == pytest.approx(spread, rel=0.05)
    np.testing.assert_array_less(np.abs(aspect), np.log(1 / 0.3) + 0.03)


def test_shrinking_by_half_weighs_pixels_by_a_triangle():
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
    weights = np.array([1, 3, 3, 1]) / 8
    kernel = np.outer(weights, weights)
    window = image[0, 1:5, 3:7, 0]
    found = jax.jit(shrink, static_argnums=1)(image, 4)[0, 1, 2, 0]
    np.testing.assert_allclose(found, (window * kernel).sum(), rtol=1e-5)


def test_random_keys_of_augmentations_are_those_of_earlier_versions():
    """The four keys into which an example's key was split."""
    key = jax.random.key(5)
    for number, earlier in enumerate(jax.random.split(key, 4)):
        assert jax.random.fold_in(key, jnp.uint32(number)) == earlier


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("randaugment.layers", 1, "expected 0 for images of 4 channels"),
        ("crop_padding", 6, "crop_padding is 6, expected less than the 6 pixels"),
        ("cutout", 7, "cutout is 7, expected at most the 6 pixels"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(key, value, message):
    augment = base_config().data.augment
    check_augmentation(augment, (8, 6, 4), small_size=6)
    augment.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        check_augmentation(augment, (8, 6, 4), None)


def test_images_cannot_be_shrunk_to_a_larger_size():
    with pytest.raises(
        UserError, match="train.small_size is 7, expected at most the 6"
    ):
        check_augmentation(base_config().data.augment, (8, 6, 3), small_size=7)
