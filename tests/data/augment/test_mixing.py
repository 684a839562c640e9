"""MixUp and CutMix against NumPy, and the distributions of their ratios."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from nfnet_jax.config import base_config
from nfnet_jax.data.augment.mixing import cutmix_mask, drawn_per_example
from nfnet_jax.data.augment.mixing import mix as mix_examples

COUNT = 10_000
IMAGES = np.random.RandomState(0).randint(0, 256, (12, 8, 6, 3)).astype(np.uint8)
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
    images, targets = mix(IMAGES, TARGETS, EXAMPLE_IDS, KEYS, train_config(1.0))
    ratio = ratios_of(np.asarray(targets, float))[:, None, None, None]
    exact = ratio * IMAGES[0::2] + (1 - ratio) * IMAGES[1::2]
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
    images, targets = mix(IMAGES, TARGETS, EXAMPLE_IDS, KEYS, train_config(cutmix=True))
    masks = np.asarray(masks_of(KEYS, (8, 6)), bool)
    expected = np.where(masks[..., None], IMAGES[0::2], IMAGES[1::2])
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
    images, targets = mix(IMAGES, TARGETS, EXAMPLE_IDS, KEYS, config)
    for offset, alone in enumerate([train_config(0.2), train_config(cutmix=True)]):
        expected = mix(IMAGES, TARGETS, EXAMPLE_IDS, KEYS, alone)
        np.testing.assert_array_equal(images[offset::2], expected[0][offset::2])
        np.testing.assert_allclose(targets[offset::2], expected[1][offset::2], 1e-5)
