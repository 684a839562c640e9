"""Augmentations of normalized images, keys of all of them, MixUp and CutMix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from data_sets import noise, refusal

from nfnet_jax.config import base_config
from nfnet_jax.data.augment import (
    check_augmentation,
    cutout,
    erase,
    erased_mask,
    normalize,
    shrink,
)
from nfnet_jax.data.augment.mixing import cutmix_mask, drawn_per_example
from nfnet_jax.data.augment.mixing import mix as mix_examples

IMAGES = noise(5, 8, 6, 3)


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
    assert message in refusal(check_augmentation, augment, (8, 6, 4), None)


def test_images_cannot_be_shrunk_to_a_larger_size():
    line = refusal(check_augmentation, base_config().data.augment, (8, 6, 3), 7)
    assert "train.small_size is 7, expected at most the 6" in line


# --- MixUp and CutMix

COUNT = 10_000
PAIRS = noise(12, 8, 6, 3)
TARGETS = np.eye(12, dtype=np.float32)
EXAMPLE_IDS = jnp.arange(6)
KEYS = jax.random.split(jax.random.key(0), 6)


masks_of = jax.jit(jax.vmap(cutmix_mask, (0, None)), static_argnums=1)


def mix(images, targets, example_ids, keys, train):
    mixed = jax.jit(functools.partial(mix_examples, train=train))
    return mixed(images, targets, example_ids, keys)


def train_config(mixup=0.0, cutmix=False):
    config = base_config().train
    config.mixup, config.cutmix = mixup, cutmix
    return config


def ratios_of(targets):
    """Share of the first image of each pair, whose two classes are 2i and 2i + 1."""
    rows = np.arange(len(targets))
    first, second = targets[rows, 2 * rows], targets[rows, 2 * rows + 1]
    np.testing.assert_allclose(first + second, 1, rtol=1e-5)
    assert np.count_nonzero(targets) <= 2 * len(targets)
    return first


def test_images_are_drawn_twice_only_where_they_are_mixed():
    assert drawn_per_example(train_config()) == 1
    for config in (train_config(0.2), train_config(cutmix=True)):
        assert drawn_per_example(config) == 2


def test_mixup_blends_neighbours_and_their_labels_in_one_ratio():
    images, targets = mix(PAIRS, TARGETS, EXAMPLE_IDS, KEYS, train_config(1.0))
    ratio = ratios_of(np.asarray(targets, float))[:, None, None, None]
    exact = ratio * PAIRS[0::2] + (1 - ratio) * PAIRS[1::2]
    assert images.dtype == jnp.uint8
    assert np.abs(np.asarray(images, float) - exact).max() < 0.5001


def test_mixup_ratios_follow_a_beta_distribution():
    keys = jax.random.split(jax.random.key(1), COUNT)
    blank = np.zeros((2 * COUNT, 1, 1, 1), np.uint8)
    targets = np.tile([[1.0, 0.0], [0.0, 1.0]], (COUNT, 1)).astype(np.float32)
    config = train_config(0.2)
    _, mixed = mix(blank, targets, jnp.arange(COUNT), keys, config)
    ratios = np.asarray(mixed[:, 0], float)
    beta = scipy.stats.beta(0.2, 0.2)
    assert abs(ratios.mean() - 0.5) < 3 * beta.std() / np.sqrt(COUNT)
    squares = (ratios - 0.5) ** 2
    assert abs(squares.mean() - beta.var()) < 3 * squares.std() / np.sqrt(COUNT)
    for quantile in (0.1, 0.25, 0.4):
        share = np.mean(ratios < beta.ppf(quantile))
        error = np.sqrt(quantile * (1 - quantile) / COUNT)
        assert abs(share - quantile) < 3 * error


def test_cutmix_shows_a_box_of_the_first_image_and_counts_its_pixels():
    images, targets = mix(PAIRS, TARGETS, EXAMPLE_IDS, KEYS, train_config(cutmix=True))
    masks = np.asarray(masks_of(KEYS, (8, 6)), bool)
    expected = np.where(masks[..., None], PAIRS[0::2], PAIRS[1::2])
    np.testing.assert_array_equal(images, expected)
    shares = ratios_of(np.asarray(targets))
    np.testing.assert_allclose(shares, masks.mean((1, 2)), atol=1e-6)
    for mask in masks:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns)
        for shown in (rows, columns):
            assert np.abs(np.diff(np.pad(shown.astype(int), 1))).sum() in (0, 2)


@pytest.fixture(scope="module")
def cutmix_draws():
    keys = jax.random.split(jax.random.key(2), COUNT)
    return np.asarray(masks_of(keys, (24, 32)))


def test_cutmix_areas_are_uniform_before_clipping(cutmix_draws):
    """The formula, with a million draws of NumPy."""
    rng = np.random.RandomState(0)
    side = np.sqrt(1 - rng.random_sample(1_000_000))
    area = 1.0
    for size in (24, 32):
        half = (side * size).astype(int) // 2
        centre = rng.randint(0, size, len(side))
        low, high = np.clip([centre - half, centre + half], 0, size)
        area = area * (high - low) / size
    found = cutmix_draws.mean((1, 2))
    assert abs(found.mean() - area.mean()) < 3 * found.std() / np.sqrt(COUNT)
    for quantile in (0.1, 0.5, 0.9):
        level = np.quantile(area, quantile) + 1e-6
        share = np.mean(area < level)
        error = np.sqrt(share * (1 - share) / COUNT)
        assert abs(np.mean(found < level) - share) < 3 * error


@pytest.mark.parametrize("axis", [1, 2])
def test_cutmix_boxes_are_anywhere(cutmix_draws, axis):
    """A pixel is shown as often in one half of an axis as in the other.

    Boxes reach from centre - half to before centre + half, so the last pixel has no
    counterpart.
    """
    shown = np.moveaxis(cutmix_draws, axis, 1)[:, :-1].mean(2)
    excess = (shown - shown[:, ::-1])[:, : shown.shape[1] // 2].sum(1)
    assert abs(excess.mean()) < 3 * excess.std() / np.sqrt(COUNT)


def test_with_both_half_of_a_batch_is_each():
    config = train_config(0.2, True)
    images, targets = mix(PAIRS, TARGETS, EXAMPLE_IDS, KEYS, config)
    for offset, alone in enumerate([train_config(0.2), train_config(cutmix=True)]):
        expected = mix(PAIRS, TARGETS, EXAMPLE_IDS, KEYS, alone)
        np.testing.assert_array_equal(images[offset::2], expected[0][offset::2])
        # A target 1 - λ is as exact as λ: to a unit in the last place of a number of 1.
        found, wanted = targets[offset::2], expected[1][offset::2]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=2**-23)
