"""Draws of RandAugment, for every image by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.data.augment.randaugment import DISTORTIONS, distort, draw, rand_augment

COUNT = 10_000
IMAGES = np.random.RandomState(0).randint(0, 256, (6, 12, 10, 3)).astype(np.uint8)
KEYS = jax.random.split(jax.random.key(1), 6)


@pytest.fixture(scope="module")
def draws():
    keys = jax.random.split(jax.random.key(0), COUNT)
    drawn = jax.jit(jax.vmap(lambda key: draw(key, (12, 10, 3))))(keys)
    return [np.asarray(each) for each in drawn]


def test_every_distortion_is_as_likely(draws):
    shares = np.bincount(draws[0], minlength=16) / COUNT
    assert len(shares) == len(DISTORTIONS)
    error = np.sqrt(1 / 16 * 15 / 16 / COUNT)
    assert np.abs(shares - 1 / 16).max() < 3 * error


def test_signs_are_fair_and_independent_of_the_choice(draws):
    choice, sign, _ = draws
    assert set(sign) == {-1, 1}
    assert abs(sign.mean()) < 3 / np.sqrt(COUNT)
    for i in range(16):
        own = sign[choice == i]
        assert abs(own.mean()) < 3 / np.sqrt(len(own))


@pytest.mark.parametrize(("axis", "size"), [(0, 12), (1, 10)])
def test_centres_are_uniform_over_the_pixels(draws, axis, size):
    shares = np.bincount(draws[2][:, axis], minlength=size) / COUNT
    assert len(shares) == size
    error = np.sqrt((1 - 1 / size) / size / COUNT)
    assert np.abs(shares - 1 / size).max() < 3 * error


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(rand_augment, static_argnums=(2, 3))


def test_layers_follow_each_other_each_with_draws_of_its_own(compiled):
    @jax.jit
    def one_layer(image, key):
        return distort(image, *draw(key, image.shape), 9)

    result = compiled(IMAGES, KEYS, 2, 9)
    for image, key, expected in zip(IMAGES, KEYS, result, strict=True):
        for layer in range(2):
            image = one_layer(image, jax.random.fold_in(key, jnp.uint32(layer)))
        np.testing.assert_array_equal(image, expected)


def test_in_any_company_an_image_becomes_the_same(compiled):
    whole = np.asarray(compiled(IMAGES, KEYS, 2, 9))
    assert np.mean(whole != IMAGES) > 0.5
    order = np.array([4, 1, 1, 5, 0, 4])
    some = compiled(IMAGES[order], KEYS[order], 2, 9)
    np.testing.assert_array_equal(some, whole[order])
