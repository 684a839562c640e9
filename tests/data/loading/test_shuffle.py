"""Shuffled epochs: each a permutation that looks like a random one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.data.loading.shuffle import (
    example_draws,
    feistel_shuffle,
    host_feistel_shuffle,
    stream_index,
)


def epochs(size, count, seed=0):
    shuffle = host_feistel_shuffle(jax.random.key(seed), size, size * count)
    return shuffle(np.arange(size * count)).reshape(count, size)


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1438, 4096, 4097])
def test_every_epoch_is_a_permutation(size):
    for order in epochs(size, 3):
        np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_epochs_and_seeds_differ():
    first, second = epochs(1000, 2)
    other = epochs(1000, 1, seed=1)[0]
    assert np.mean(first == second) < 0.01 and np.mean(first == other) < 0.01


def test_places_of_an_example_are_uniform():
    """χ² of the place (in tenths of an epoch) of every example over 400 epochs."""
    size, count = 50, 400
    orders = epochs(size, count)
    observed = np.zeros((size, 10))
    for order in orders:
        observed[order, np.arange(size) * 10 // size] += 1
    expected = count / 10
    chi2 = np.sum((observed - expected) ** 2 / expected, axis=1)
    assert chi2.mean() == pytest.approx(9, abs=2)


def test_neighbours_are_independent():
    order = epochs(4096, 1)[0].astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(order, np.arange(4096))[0, 1]) < 0.05


@pytest.mark.parametrize("size", [1, 100, 4097])
def test_device_and_host_compute_the_same_order(size):
    places = np.arange(3 * size, dtype=np.uint32)
    key = jax.random.key(7)
    on_device = jax.jit(feistel_shuffle, static_argnums=2)(key, places, size)
    on_host = host_feistel_shuffle(key, size, len(places))(places)
    np.testing.assert_array_equal(on_host, on_device)


def test_every_image_draws_its_own_examples_from_a_place_of_its_own():
    example_ids = jnp.arange(7, 10, dtype=jnp.uint32)
    draws = example_draws(example_ids, 2)
    assert draws.tolist() == stream_index(draws, 2, 1).tolist() == [*range(14, 20)]
    draws = example_draws(example_ids, 1)
    assert draws.tolist() == stream_index(draws, 1, 1).tolist() == [7, 8, 9]


def test_repeated_examples_are_drawn_in_a_row_and_augmented_each_for_itself():
    draws = example_draws(jnp.arange(6, dtype=jnp.uint32), 2)
    assert draws.tolist() == list(range(12))
    for ids in (draws, np.asarray(draws)):
        places = stream_index(ids, 2, 3).tolist()
        assert places == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]
