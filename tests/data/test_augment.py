"""Augmentations against NumPy's padding, slicing and flipping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.config import base_config
from nfnet_jax.data.augment import cutout, erase, erased_mask, normalize
from nfnet_jax.data.augment.crops import (
    CropDraws,
    crop_box,
    crop_draws,
    resize_crops,
    take_crops,
)

IMAGES = np.random.RandomState(0).randint(0, 256, (5, 8, 6, 3)).astype(np.uint8)


def augment(padding, flip):
    config = base_config().data.augment
    config.crop_padding, config.flip = padding, flip
    return config


@pytest.mark.parametrize("row, column", [(0, 0), (2, 1), (4, 3)])
@pytest.mark.parametrize("flipped", [False, True])
def test_crop_is_a_slice_of_the_mirrored_image(row, column, flipped):
    draws = jnp.array([row / 5 + 0.1, column / 5 + 0.1, 0.4 if flipped else 0.6, 0, 0])
    draws = CropDraws(*draws[:, None])
    crop = take_crops(IMAGES, jnp.array([3]), draws, augment(2, True))[0]
    padded = np.pad(IMAGES[3], ((2, 2), (2, 2), (0, 0)), mode="reflect")
    expected = padded[row : row + 8, column : column + 6]
    np.testing.assert_array_equal(crop, expected[:, ::-1] if flipped else expected)


def test_without_augmentation_images_are_taken_as_they_are():
    draws = CropDraws(*jnp.full((5, 5), 0.1))
    order = jnp.array([4, 0, 0, 2, 1])
    taken = take_crops(IMAGES, order, draws, augment(0, False))
    np.testing.assert_array_equal(taken, IMAGES[order])


def test_normalized_data_has_mean_zero_and_variance_one():
    scaled = IMAGES / 255.0
    mean, std = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
    x = np.asarray(normalize(IMAGES, mean, std), float)
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(x.var((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("row, column", [(0, 0), (3, 5), (7, 2)])
def test_cutout_zeroes_one_square_clipped_at_the_borders(row, column):
    draws = jnp.array([[row / 8 + 0.01, column / 6 + 0.01]])
    result = cutout(jnp.ones((1, 8, 6, 2)), draws, 4)[0]
    expected = np.ones((8, 6, 2))
    expected[max(0, row - 2) : row + 2, max(0, column - 2) : column + 2] = 0
    np.testing.assert_array_equal(result, expected)


def test_half_of_the_images_are_flipped():
    draws = crop_draws(jax.random.key(0), jnp.arange(10_000))
    pair = np.array([0, 1], np.uint8).reshape(1, 1, 2, 1)
    crops = take_crops(pair, jnp.zeros(10_000, int), draws, augment(0, True))
    flipped = np.mean(np.asarray(crops)[:, 0, 0, 0] == 1)
    assert abs(flipped - 0.5) < 3 * 0.5 / np.sqrt(10_000)


@pytest.mark.parametrize("flip", [False, True])
def test_resized_crops_are_taken_where_they_are_asked_for(flip):
    config = augment(0, flip)
    config.random_resized_crop = True
    draws = crop_draws(jax.random.key(0), jnp.arange(20))
    draws = draws._replace(flip=jnp.full(20, 0.4))
    indices = jnp.arange(20) % 5
    box = crop_box(draws, 8, 6)
    expected = resize_crops(IMAGES[indices], box)
    expected = expected[:, :, ::-1] if flip else expected
    np.testing.assert_array_equal(take_crops(IMAGES, indices, draws, config), expected)


def test_erasing_zeroes_rectangles_of_a_share_of_the_images():
    draws = jax.random.uniform(jax.random.key(0), (10_000, 5))
    result = np.asarray(erase(jnp.ones((10_000, 12, 10, 1)), draws, 0.25))[..., 0] == 0
    erased = result.any((1, 2))
    assert abs(erased.mean() - 0.25) < 3 * np.sqrt(0.25 * 0.75 / 10_000)
    holes = result[erased]
    rows, columns = holes.any(2), holes.any(1)
    np.testing.assert_array_equal(holes, rows[:, :, None] & columns[:, None])
    for shown in (rows, columns):
        edges = np.diff(np.pad(shown.astype(int), [(0, 0), (1, 1)]))
        assert np.all(np.abs(edges).sum(1) == 2)


def test_erased_rectangles_have_uniform_areas_and_log_uniform_aspects():
    draws = jax.random.uniform(jax.random.key(1), (10_000, 4))
    holes = jax.vmap(lambda draw: erased_mask(draw, (400, 400)))(draws[:1000])
    rows, columns = (np.asarray(holes.any(axis).sum(1), float) for axis in (2, 1))
    area, aspect = rows * columns / 400**2, np.log(rows / columns)
    # Of a square image, the longest rectangles of the largest areas do not fit.
    fits = np.maximum(rows, columns) < 400
    assert fits.mean() > 0.99
    assert 0.0195 < area.min() and area.max() < 0.335
    spread = (1 / 3 - 0.02) / np.sqrt(12)
    assert abs(area.mean() - (1 / 3 + 0.02) / 2) < 3 * spread / np.sqrt(1000)
    spread = 2 * np.log(1 / 0.3) / np.sqrt(12)
    assert abs(aspect.mean()) < 3 * spread / np.sqrt(1000)
    assert aspect.std() == pytest.approx(spread, rel=0.05)
    np.testing.assert_array_less(np.abs(aspect), np.log(1 / 0.3) + 0.03)


def test_random_keys_of_augmentations_are_those_of_earlier_versions():
    """The four keys into which an example's key was split."""
    key = jax.random.key(5)
    for number, earlier in enumerate(jax.random.split(key, 4)):
        assert jax.random.fold_in(key, number) == earlier
