"""Random-resized crops: resized as evaluation images are, drawn as TensorFlow draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.data.augment.crops import CropDraws, crop_box, resize_crops
from nfnet_jax.data.images.bicubic import bicubic

COUNT = 10_000
IMAGES = np.random.RandomState(0).randint(0, 256, (4, 24, 18, 3)).astype(np.uint8)
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


def uniform(count, seed=0):
    row, column, aspect, height = jax.random.uniform(jax.random.key(seed), (4, count))
    return CropDraws(row, column, None, aspect, height)


@pytest.mark.parametrize(
    "box", [(0, 0, 24, 18), (3, 2, 7, 9), (20, 17, 4, 1), (0, 5, 24, 3)]
)
def test_a_crop_is_resized_as_evaluation_images_are(box):
    top, left, rows, columns = box
    part = IMAGES[1, top : top + rows, left : left + columns]
    exact = np.clip(bicubic(part, 24, 18), 0, 255)
    arguments = tuple(jnp.array([float(x)]) for x in box)
    result = np.asarray(jax.jit(resize_crops)(IMAGES[1:2], arguments)[0], float)
    assert np.abs(result - exact).max() < 0.501


def test_the_whole_image_stays_as_it_is():
    box = (0.0, 0.0, 24.0, 18.0)
    whole = tuple(jnp.full(4, x) for x in box)
    np.testing.assert_array_equal(resize_crops(IMAGES, whole), IMAGES)


@pytest.mark.parametrize("shape", TENSORFLOW)
def test_boxes_have_tensorflows_moments(shape):
    height, width = shape
    top, left, rows, columns = map(np.asarray, crop_box(uniform(COUNT), *shape))
    found = {
        "top": top,
        "left": left,
        "rows": rows,
        "columns": columns,
        "area": rows * columns / (height * width),
    }
    for name, (mean, deviation) in TENSORFLOW[shape].items():
        error = deviation * np.sqrt(2 / COUNT)
        assert abs(found[name].mean(dtype=float) - mean) < 3 * error, name


@pytest.mark.parametrize("shape", [(24, 24), (20, 60), (1, 1)])
def test_boxes_lie_within_the_image_and_the_limits(shape):
    height, width = shape
    top, left, rows, columns = map(np.asarray, crop_box(uniform(COUNT), *shape))
    assert min(top.min(), left.min()) >= 0
    assert (top + rows).max() <= height and (left + columns).max() <= width
    # Half a pixel of rounding on either side.
    assert np.all((rows + 0.5) * (columns + 0.5) >= 0.08 * height * width)
    assert np.all((columns + 0.5) / np.maximum(rows - 0.5, 0.1) >= 3 / 4)
    assert np.all((columns - 0.5) / (rows + 0.5) <= 4 / 3)


def test_aspects_are_uniform():
    _, _, rows, columns = crop_box(uniform(COUNT), 4096, 4096)
    aspect = np.asarray(columns / rows, float)
    spread = (4 / 3 - 3 / 4) / np.sqrt(12)
    assert abs(aspect.mean() - 25 / 24) < 3 * spread / np.sqrt(COUNT)
    assert aspect.std() == pytest.approx(spread, rel=0.02)


def test_loaders_in_numpy_draw_the_same_boxes():
    draws = uniform(100)
    on_host = CropDraws(*map(np.asarray, draws))
    for ours, theirs in zip(
        crop_box(draws, 50, 70), crop_box(on_host, 50, 70), strict=True
    ):
        assert isinstance(theirs, np.ndarray)
        np.testing.assert_array_equal(ours, theirs)
