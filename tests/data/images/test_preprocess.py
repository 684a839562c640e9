"""Rules of each publisher against formulas written down a second time."""

import math

import numpy as np
import pytest
from data_sets import noise

from nfnet_jax.data.images.bicubic import bicubic
from nfnet_jax.data.images.preprocess import (
    CROPS,
    Preprocessing,
    crop_resize,
    resize_and_crop,
    resize_crop_32,
)
from nfnet_jax.models.registry import find, list_models
from nfnet_jax.models.variant import IMAGENET_MEAN, IMAGENET_STD

SIZES = [(37, 53), (53, 37), (1, 1), (1, 9), (3, 2), (64, 64), (301, 97)]


def tensorflow_line(line: np.ndarray, new: int) -> np.ndarray:
    """tf.image.resize(method="bicubic", antialias=False) of [N, C], pixel by pixel."""
    old, a, steps = len(line), -0.5, 1024
    x = np.arange(steps + 1) / steps
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    out = np.zeros((new, line.shape[1]))
    for i in range(new):
        place = (i + 0.5) * old / new - 0.5
        left = math.floor(place)
        k = round((place - left) * steps)
        taps = zip(
            range(left - 1, left + 3),
            (far[k], near[k], near[steps - k], far[steps - k]),
            strict=True,
        )
        inside = [(j, weight) for j, weight in taps if 0 <= j < old]
        total = sum(weight for _, weight in inside)
        out[i] = sum(weight * line[j] for j, weight in inside) / total
    return out


def tensorflow_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    image = image.astype(float)
    columns = [tensorflow_line(image[:, x], height) for x in range(image.shape[1])]
    image = np.stack(columns, axis=1)
    return np.stack([tensorflow_line(row, width) for row in image])


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("new", [(1, 2), (31, 31), (64, 65), (100, 7)])
def test_bicubic_is_tensorflows(height, width, new):
    image = noise(height, width, 3)
    found = bicubic(image, *new)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tensorflow_bicubic(image, *new), atol=2e-3)


def test_bicubic_keeps_overshoots_and_constants():
    edge = np.zeros((8, 8, 1), np.uint8)
    edge[:, 4:] = 255
    found = bicubic(edge, 20, 20)
    assert found.min() < -5 and found.max() > 260
    flat = bicubic(np.full((5, 7, 3), 200, np.uint8), 11, 3)
    np.testing.assert_allclose(flat, 200, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [16, 33])
def test_resize_crop_32(height, width, size):
    image = noise(height, width, 3)
    whole = tensorflow_bicubic(image, size + 32, size + 32)
    found = resize_crop_32(image, size)
    np.testing.assert_allclose(found, whole[16:-16, 16:-16], atol=2e-3)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        # 32 / (32 + 32) of the shorter side; an odd rest is more on the left.
        (40, 64, slice(10, 30), slice(22, 42)),
        (41, 64, slice(11, 31), slice(22, 42)),
        (65, 40, slice(23, 43), slice(10, 30)),
        (1, 3, slice(0, 1), slice(1, 2)),
    ],
)
def test_crop_resize(height, width, rows, columns):
    image = noise(height, width, 3)
    expected = tensorflow_bicubic(image[rows, columns], 32, 32)
    np.testing.assert_allclose(crop_resize(image, 32), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("share", "mean", "std", "corner", "inside"),
    [
        (
            0.9,
            [0.061108, 0.197031, 0.406229],
            [0.775383, 1.194490, 1.195202],
            [0.536433, 0.152661, 0.705360],
            [0.947427, -1.387955, 1.925403],
        ),
        (
            1.0,
            [0.032152, 0.199096, 0.419101],
            [0.725140, 1.173482, 1.173206],
            [-2.015156, -0.862745, 0.060479],
            [-1.039044, 1.168067, 2.029978],
        ),
    ],
)
def test_a_share_is_timms_crop_pct(share, mean, std, corner, inside):
    """Results of `timm.data.create_transform` of timm 1.0.31 for the same image."""
    y, x = np.mgrid[:97, :141]
    channels = (x * y, x * x // 7 + 3 * y, 5 * x + y * y // 5)
    image = (np.stack(channels, axis=-1) % 256).astype(np.uint8)
    found = Preprocessing(64, share, IMAGENET_MEAN, IMAGENET_STD)(image)
    # A pixel of another level, which other releases of Pillow may make, is 0.017.
    np.testing.assert_allclose(found.mean((0, 1)), mean, atol=2e-3)
    np.testing.assert_allclose(found.std((0, 1)), std, atol=2e-3)
    np.testing.assert_allclose(found[0, 0], corner, atol=0.02)
    np.testing.assert_allclose(found[40, 17], inside, atol=0.02)


@pytest.mark.parametrize("crop", [*CROPS, 1.0, 0.9])
@pytest.mark.parametrize(("height", "width"), [*SIZES, (1, 30_000), (30_000, 2)])
def test_every_rule_takes_every_size(crop, height, width):
    prepare = Preprocessing(32, crop, IMAGENET_MEAN, IMAGENET_STD)
    found = prepare(np.full((height, width, 3), 51, np.uint8))
    assert found.shape == (32, 32, 3) and found.dtype == np.float32
    # 51 / 255 = 0.2
    expected = (0.2 - np.array(IMAGENET_MEAN)) / IMAGENET_STD
    np.testing.assert_allclose(found, np.broadcast_to(expected, (32, 32, 3)), atol=1e-4)


def test_training_is_as_data_are_prepared():
    image = noise(20, 30, 3)
    found = Preprocessing(8, "training", (0.0,) * 3, (1.0,) * 3)(image)
    np.testing.assert_allclose(found * 255, resize_and_crop(image, 8), atol=1e-4)


def test_one_channel_is_grey_by_luminance():
    image = noise(9, 9, 3)
    found = Preprocessing(9, "training", (0.5,), (0.25,))(image)
    luminance = image @ [0.299, 0.587, 0.114]
    expected = ((luminance / 255 - 0.5) / 0.25)[..., None]
    np.testing.assert_allclose(found, expected, atol=0.51 / 255 / 0.25)
    # Grey stays as it is, to the last bit.
    grey = np.repeat(noise(9, 9, 1), 3, axis=2)
    found = Preprocessing(9, "training", (0.0,), (1.0,))(grey)
    np.testing.assert_array_equal(np.round(found * 255), grey[..., :1])


@pytest.mark.parametrize("crop", ["resize_crop32", 0.0, 1.1])
def test_unknown_rules_are_refused(crop):
    with pytest.raises(ValueError, match="expected"):
        Preprocessing(8, crop, IMAGENET_MEAN, IMAGENET_STD)


def test_every_model_has_its_publishers_rule():
    for name in list_models():
        variant = find(name)
        Preprocessing(variant.test_size, variant.crop, variant.mean, variant.std)
    expected = {
        "nfnet_f0": (256, "resize_crop_32"),
        "nfnet_f3plus": (416, "resize_crop_32"),
        "dm_nfnet_f6": (576, "resize_crop_32"),
        "nf_resnet50": (224, "crop_resize"),
        "nf_regnet_b1": (256, "crop_resize"),
        "bn_resnet50": (224, "crop_resize"),
        "nf_wrn_16_4": (32, "training"),
        "fixup_wrn_16_4": (32, "training"),
        "nf_bottleneck_5_16": (32, "training"),
        # timm 1.0.31: test_input_size, and test_crop_pct or else crop_pct.
        "nfnet_l0": (288, 1.0),
        "eca_nfnet_l0": (288, 1.0),
        "eca_nfnet_l1": (320, 1.0),
        "eca_nfnet_l2": (384, 1.0),
        "timm_nf_regnet_b1": (288, 0.9),
        "timm_nf_resnet50": (288, 0.94),
    }
    found = {name: (find(name).test_size, find(name).crop) for name in expected}
    assert found == expected


def test_crop_is_central_and_exact_where_nothing_is_resized():
    wide = noise(8, 15, 3)
    np.testing.assert_array_equal(resize_and_crop(wide, 8), wide[:, 3:11])
    tall = wide.transpose(1, 0, 2)
    np.testing.assert_array_equal(resize_and_crop(tall, 8), tall[3:11])


@pytest.mark.parametrize("shape", [(7, 9, 1), (40, 33, 3), (5, 100, 4), (6, 6, 3)])
def test_resize_gives_the_size_and_keeps_a_constant(shape):
    resized = resize_and_crop(np.full(shape, 77, np.uint8), 6)
    # Pillow weights colours by opacity, which rounds them once more.
    tolerance = 1 if shape[2] == 4 else 0
    expected = np.full((6, 6, shape[2]), 77)
    np.testing.assert_allclose(resized, expected, atol=tolerance, rtol=0)


def test_resize_keeps_a_ramp():
    # Resampling a linear ramp gives the ramp at the new pixel centres.
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 1))
    centres = (np.arange(16) + 0.5) * 4 - 0.5
    row = resize_and_crop(ramp, 16)[8, :, 0].astype(float)
    np.testing.assert_allclose(row[2:-2], 4 * centres[2:-2], atol=1)
