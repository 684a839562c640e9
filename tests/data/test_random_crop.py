"""Random-resized crops of a stream: bounds, distribution, pixels."""

import numpy as np
import pytest

from nfnet_jax.data.augment.crops import (
    AREA,
    ASPECT,
    crop_box,
    host_crop_draws,
    random_resized_crop,
)
from nfnet_jax.data.images.bicubic import bicubic


def box_at(seed, position, height, width):
    draws = host_crop_draws(seed, position)
    return tuple(map(int, crop_box(draws, height, width)))


def boxes(height, width, count=500, seed=0):
    return np.array([box_at(seed, i, height, width) for i in range(count)])


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (500, 375), (64, 64), (300, 900)]
)
def test_crops_lie_inside_and_within_the_bounds(height, width):
    top, left, rows, columns = boxes(height, width).T
    assert (top >= 0).all() and (top + rows <= height).all()
    assert (left >= 0).all() and (left + columns <= width).all()
    # Half a pixel of rounding on the sides.
    share = rows * (columns + 0.5) / (height * width)
    assert (share >= AREA[0]).all() and (rows * columns <= height * width).all()
    assert ((columns + 0.5) / rows >= ASPECT[0]).all()
    assert ((columns - 0.5) / rows <= ASPECT[1]).all()


def test_places_and_shapes_are_spread():
    """In a square, means of uniform draws: the aspect's is that of its interval."""
    top, left, rows, columns = boxes(1000, 1000, 2000).T.astype(float)
    for place, free in ((top, 1000 - rows), (left, 1000 - columns)):
        movable = free > 100
        assert np.mean(place[movable] / free[movable]) == pytest.approx(0.5, abs=0.03)
    small = rows < 700  # whatever the aspect, such a height is possible
    tall = rows > np.sqrt(0.08 / ASPECT[0]) * 1000
    aspect = (columns / rows)[small & tall]
    # Among these heights, 1 / (range of heights) weighs the uniform aspect.
    grid = np.linspace(*ASPECT, 1000)
    span = np.minimum(1, 1 / np.maximum(grid, np.sqrt(grid))) - np.sqrt(0.08 / grid)
    expected = np.sum(grid / span) / np.sum(1 / span)
    assert aspect.mean() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("sides", [(100, 1200), (1200, 100), (100, 1000)])
def test_in_a_long_image_the_possible_aspects_are_uniform(sides):
    """As if drawn again until the least of their heights lies in the image."""
    height, width = sides
    random = np.random.RandomState(0)
    drawn = random.uniform(*ASPECT, 100_000)
    least = np.sqrt(AREA[0] * height * width / drawn)
    drawn = drawn[(least <= height) & (least * drawn <= width)]
    _, _, rows, columns = boxes(height, width, 2000).T
    aspect = columns / rows
    error = drawn.std() / np.sqrt(2000)
    # Rounding to pixels shifts the mean of a ratio, by less than this.
    assert abs(aspect.mean() - drawn.mean()) < 3 * error + 0.002
    assert aspect.std() == pytest.approx(drawn.std(), rel=0.1)


def test_a_strip_gives_its_central_square():
    assert box_at(0, 0, 20, 2000) == (0, 990, 20, 20)
    assert box_at(0, 0, 2000, 20) == (990, 0, 20, 20)
    assert box_at(0, 0, 1, 1) == (0, 0, 1, 1)


def test_a_crop_is_resized_and_half_are_mirrored():
    image = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)
    mirrored = 0
    for i in range(200):
        draws = host_crop_draws(1, i)
        top, left, rows, columns = box_at(1, i, 40, 50)
        part = image[top : top + rows, left : left + columns]
        expected = np.clip(np.rint(bicubic(part, 12, 12)), 0, 255)
        found = random_resized_crop(image, 12, draws, True)
        same = np.array_equal(found, expected)
        assert same or np.array_equal(found, expected[:, ::-1])
        mirrored += not same
        plain = random_resized_crop(image, 12, draws, False)
        np.testing.assert_array_equal(plain, expected)
    assert 70 < mirrored < 130


def test_draws_depend_on_seed_and_position_alone():
    np.testing.assert_array_equal(host_crop_draws(3, 10**9), host_crop_draws(3, 10**9))
    draws = np.array([host_crop_draws(seed, i) for seed in (0, 1) for i in range(500)])
    assert len(np.unique(draws)) == draws.size
    assert (draws >= 0).all() and (draws < 1).all()
    assert draws.mean() == pytest.approx(0.5, abs=0.01)
