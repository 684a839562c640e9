"""Crops against NumPy's padding and slicing, and boxes against TensorFlow's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_sets import noise

from nfnet_jax.config import base_config
from nfnet_jax.data.augment.crops import (
    AREA,
    ASPECT,
    CropDraws,
    alternate_flips,
    crop_box,
    crop_draws,
    host_crop_draws,
    random_resized_crop,
    resize_crops,
    take_crops,
)
from nfnet_jax.data.images.bicubic import bicubic

COUNT = 10_000
IMAGES = noise(5, 24, 18, 3)
# Mean and standard deviation of 10,000 boxes that TensorFlow 2.12's
# sample_distorted_bounding_box drew in images of (height, width).
TENSORFLOW = {
    (224, 224): {
        "top": (44.05, 36.34),
        "left": (42.29, 35.85),
        "rows": (134.83, 44.21),
        "columns": (138.39, 44.61),
        "area": (0.4060, 0.2358),
    },
    (160, 240): {
        "top": (25.96, 23.31),
        "left": (63.25, 42.79),
        "rows": (107.36, 30.52),
        "columns": (111.60, 36.36),
        "area": (0.3368, 0.1880),
    },
}


def take(images, rows, draws, padding=0, flip=False, resized=False):
    augment = base_config().data.augment
    augment.crop_padding, augment.flip = padding, flip
    augment.random_resized_crop = resized
    take = jax.jit(functools.partial(take_crops, augment=augment))
    return take(images, jnp.asarray(rows), draws)


@pytest.mark.parametrize("row, column", [(0, 0), (2, 1), (4, 3)])
@pytest.mark.parametrize("flipped", [False, True])
def test_crop_is_a_slice_of_the_mirrored_image(row, column, flipped):
    draws = np.float32([row / 5 + 0.1, column / 5 + 0.1, 0.6 - 0.2 * flipped, 0, 0])
    crop = take(IMAGES, [3], CropDraws(*draws[:, None]), 2, True)[0]
    padded = np.pad(IMAGES[3], ((2, 2), (2, 2), (0, 0)), mode="reflect")
    expected = padded[row : row + 24, column : column + 18]
    np.testing.assert_array_equal(crop, expected[:, ::-1] if flipped else expected)


def test_without_augmentation_images_are_taken_as_they_are():
    order = [4, 0, 0, 2, 1]
    found = take(IMAGES, order, CropDraws(*np.full((5, 5), 0.1, np.float32)))
    np.testing.assert_array_equal(found, IMAGES[order])


def test_half_of_the_images_are_flipped():
    draws = jax.jit(crop_draws)(jax.random.key(0), jnp.arange(COUNT))
    pair = np.array([0, 1], np.uint8).reshape(1, 1, 2, 1)
    crops = take(pair, np.zeros(COUNT, int), draws, flip=True)
    flipped = np.mean(np.asarray(crops)[:, 0, 0, 0] == 1)
    assert abs(flipped - 0.5) < 3 * 0.5 / np.sqrt(COUNT)


def assert_resized(found, images, boxes):
    for result, image, box in zip(found, images, boxes, strict=True):
        top, left, rows, columns = box
        part = image[top : top + rows, left : left + columns]
        exact = np.clip(bicubic(part, 24, 18), 0, 255)
        assert np.abs(result - exact).max() < 0.501


@pytest.mark.parametrize("flip", [False, True])
def test_resized_crops_are_taken_where_they_are_asked_for(flip):
    draws = jax.jit(crop_draws)(jax.random.key(0), jnp.arange(20))
    draws = draws._replace(flip=np.full(20, 0.4, np.float32))
    rows = np.arange(20) % 5
    found = take(IMAGES, rows, draws, flip=flip, resized=True)
    found = np.asarray(found)[:, :, ::-1] if flip else np.asarray(found)
    boxes = np.stack(crop_box(CropDraws(*map(np.asarray, draws)), 24, 18), 1)
    assert_resized(found, IMAGES[rows], boxes.astype(int))


def test_parts_of_any_shape_are_resized_and_the_whole_stays_as_it_is():
    boxes = [(0, 0, 24, 18), (3, 2, 7, 9), (20, 17, 4, 1), (0, 5, 24, 3)]
    found = jax.jit(resize_crops)(IMAGES[:4], tuple(np.float32(boxes).T))
    np.testing.assert_array_equal(found[0], IMAGES[0])
    assert_resized(np.asarray(found), IMAGES[:4], boxes)


def boxes(height, width):
    draws = np.random.RandomState(0).uniform(size=(5, COUNT))
    return crop_box(CropDraws(*draws), height, width)


@pytest.mark.parametrize("shape", TENSORFLOW)
def test_boxes_have_tensorflows_moments(shape):
    height, width = shape
    found = dict(zip(("top", "left", "rows", "columns"), boxes(*shape), strict=True))
    found["area"] = found["rows"] * found["columns"] / (height * width)
    for name, (mean, deviation) in TENSORFLOW[shape].items():
        error = deviation * np.sqrt(2 / COUNT)
        assert abs(found[name].mean(dtype=float) - mean) < 3 * error, name


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (24, 24), (20, 60), (900, 300), (1, 1)]
)
def test_boxes_lie_within_the_image_and_the_limits(height, width):
    top, left, rows, columns = boxes(height, width)
    assert min(top.min(), left.min()) >= 0
    assert (top + rows).max() <= height and (left + columns).max() <= width
    # Half a pixel of rounding on either side.
    assert np.all((rows + 0.5) * (columns + 0.5) >= AREA[0] * height * width)
    assert np.all((columns + 0.5) / np.maximum(rows - 0.5, 0.1) >= ASPECT[0])
    assert np.all((columns - 0.5) / (rows + 0.5) <= ASPECT[1])


@pytest.mark.parametrize(
    ("sides", "shift", "spread"),
    # Rounding to pixels shifts the mean of a ratio in a long image, by less than this.
    [
        ((4096, 4096), 0, 0.02),
        ((100, 1200), 0.002, 0.1),
        ((1200, 100), 0.002, 0.1),
        ((100, 1000), 0.002, 0.1),
    ],
)
def test_aspects_are_uniform_among_the_possible_ones(sides, shift, spread):
    """Aspects drawn again until the least of their heights lies in the image."""
    height, width = sides
    random = np.random.RandomState(0)
    drawn = random.uniform(*ASPECT, 100_000)
    least = np.sqrt(AREA[0] * height * width / drawn)
    drawn = drawn[(least <= height) & (least * drawn <= width)]
    _, _, rows, columns = boxes(height, width)
    aspect = columns / rows
    error = drawn.std() / np.sqrt(COUNT)
    assert abs(aspect.mean() - drawn.mean()) < 3 * error + shift
    assert aspect.std() == pytest.approx(drawn.std(), rel=spread)


@pytest.mark.parametrize(
    ("sides", "box"),
    [
        ((20, 2000), (0, 990, 20, 20)),
        ((2000, 20), (990, 0, 20, 20)),
        ((1, 1), (0, 0, 1, 1)),
    ],
)
def test_a_strip_gives_its_central_square(sides, box):
    np.testing.assert_array_equal(crop_box(host_crop_draws(0, 0), *sides), box)


def test_loaders_in_numpy_draw_the_same_boxes():
    draws = jax.jit(crop_draws)(jax.random.key(0), jnp.arange(100))
    on_device = jax.jit(crop_box, static_argnums=(1, 2))(draws, 50, 70)
    on_host = crop_box(CropDraws(*map(np.asarray, draws)), 50, 70)
    for ours, theirs in zip(on_device, on_host, strict=True):
        assert isinstance(theirs, np.ndarray)
        np.testing.assert_array_equal(ours, theirs)


def test_a_streamed_crop_is_resized_and_half_are_mirrored():
    image = noise(40, 50, 3)
    mirrored = 0
    for i in range(200):
        draws = host_crop_draws(1, i)
        top, left, rows, columns = map(int, crop_box(draws, 40, 50))
        part = image[top : top + rows, left : left + columns]
        expected = np.clip(np.rint(bicubic(part, 12, 12)), 0, 255)
        found = random_resized_crop(image, 12, draws, True)
        same = np.array_equal(found, expected)
        assert same or np.array_equal(found, expected[:, ::-1])
        mirrored += not same
        plain = random_resized_crop(image, 12, draws, False)
        np.testing.assert_array_equal(plain, expected)
    assert 70 < mirrored < 130


def test_host_draws_depend_on_seed_and_draw_alone():
    np.testing.assert_array_equal(host_crop_draws(3, 10**9), host_crop_draws(3, 10**9))
    draws = np.array([host_crop_draws(seed, i) for seed in (0, 1) for i in range(500)])
    assert len(np.unique(draws)) == draws.size
    assert (draws >= 0).all() and (draws < 1).all()
    assert draws.mean() == pytest.approx(0.5, abs=0.01)


@functools.cache
def flips(epoch):
    draws = jax.jit(alternate_flips)(
        jax.random.key(0), jnp.arange(1000), jnp.full(1000, epoch, "uint32")
    )
    return np.asarray(draws) < 0.5


def test_flips_alternate_from_epoch_to_epoch_and_half_of_the_images_start_mirrored():
    np.testing.assert_array_equal(flips(0), ~flips(1))
    np.testing.assert_array_equal(flips(0), flips(2))
    assert 430 < flips(0).sum() < 570


def test_an_image_keeps_its_side_wherever_it_stands_in_a_batch():
    rows, epochs = jnp.array([5, 900, 17]), jnp.array([0, 1, 2], "uint32")
    draws = jax.jit(alternate_flips)(jax.random.key(0), rows, epochs)
    first = flips(0)
    np.testing.assert_array_equal(draws < 0.5, [first[5], ~first[900], first[17]])
