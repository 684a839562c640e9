"""RandAugment: distortions against the published code, Pillow and formulas; draws."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_sets import noise
from PIL import Image, ImageEnhance, ImageOps

from nfnet_jax.data.augment.distortions import MAPS, move, places
from nfnet_jax.data.augment.randaugment import DISTORTIONS, distort, draw, rand_augment

REFERENCE = dict(
    np.load(pathlib.Path(__file__).parents[2] / "reference_outputs/randaugment.npz")
)
IMAGE = REFERENCE.pop("image")
# The published code drops the fraction of what float32 has rounded, and may so come out
# a count beside the exact value; sharpness multiplies that count by up to 1.8.
LOWER = {"AutoContrast": 1, "Sharpness": 2}


@functools.partial(jax.jit, static_argnames="magnitude")
def distorted(image, choice, sign, centre, magnitude):
    return distort(image, choice, sign, centre, magnitude)


def apply(name, image=IMAGE, magnitude=10, sign=1, centre=(0, 0)):
    choice = DISTORTIONS.index(name)
    result = distorted(image, choice, sign, jnp.array(centre), magnitude)
    return np.asarray(result, int)


@pytest.mark.parametrize("key", REFERENCE)
def test_as_the_published_code(key):
    name, magnitude, sign = key.split("_")
    result = apply(name, IMAGE, int(magnitude), 1 if sign == "plus" else -1)
    difference = np.abs(result - REFERENCE[key])
    assert difference.max() <= LOWER.get(name, 0)
    assert np.mean(difference > 0) < 0.002


def test_the_published_outputs_are_of_all_distortions_but_the_random_one():
    assert {key.split("_")[0] for key in REFERENCE} == {*DISTORTIONS} - {"Cutout"}


@pytest.mark.parametrize(
    ("name", "pillow", "tolerance"),
    [
        ("Invert", ImageOps.invert, 0),
        ("Equalize", ImageOps.equalize, 0),
        # Pillow computes in floating point, and may drop a fraction of almost 1.
        ("AutoContrast", ImageOps.autocontrast, 1),
        ("Posterize", lambda image: ImageOps.posterize(image, 2), 0),
        ("Solarize", lambda image: ImageOps.solarize(image, 128), 0),
    ],
)
def test_as_pillow_at_magnitude_5(name, pillow, tolerance):
    expected = np.asarray(pillow(Image.fromarray(IMAGE)), int)
    assert np.abs(apply(name, magnitude=5) - expected).max() <= tolerance


@pytest.mark.parametrize("name", ["Brightness", "Color", "Sharpness"])
@pytest.mark.parametrize("magnitude", [3, 10, 15])
def test_enhancements_are_pillows(name, magnitude):
    factor = magnitude / 10 * 1.8 + 0.1
    enhance = getattr(ImageEnhance, name)(Image.fromarray(IMAGE)).enhance
    difference = np.abs(apply(name, magnitude=magnitude) - np.asarray(enhance(factor)))
    # Pillow rounds the grey and the smooth image to the nearest count, not down.
    rounding = 1 if name != "Brightness" else 0
    assert difference.max() <= rounding * abs(1 - factor) + 1


@pytest.mark.parametrize("shape", [(20, 28, 3), (260, 256, 3)])
def test_contrast_blends_with_a_constant_of_pixels_by_256(shape):
    image = noise(*shape)
    constant = min(shape[0] * shape[1] // 256, 255)
    exact = (10 * constant + 19 * (image.astype(int) - constant)) // 10
    np.testing.assert_array_equal(apply("Contrast", image), np.clip(exact, 0, 255))


@pytest.mark.parametrize(("name", "axis"), [("TranslateX", 1), ("TranslateY", 0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_translation_uncovers_grey(name, axis, sign):
    result = np.moveaxis(apply(name, magnitude=1, sign=sign), axis, 0)
    source, grey = np.moveaxis(IMAGE, axis, 0), np.full((10, 1, 1), 128)
    rest = source[10:] if sign == 1 else source[:-10]
    grey = np.broadcast_to(grey, (10, *rest.shape[1:]))
    expected = [rest, grey] if sign == 1 else [grey, rest]
    np.testing.assert_array_equal(result, np.concatenate(expected))


def test_a_rotation_by_90_degrees_is_a_transposition():
    square = IMAGE[:20, :20]
    quarter = places(MAPS["Rotate"](3.0, 1, 20, 20), 20, 20)
    np.testing.assert_array_equal(move(square, quarter), np.rot90(square))


@pytest.mark.parametrize("centre", [(0, 0), (9, 14), (19, 27)])
def test_cutout_covers_a_square_about_its_centre(centre):
    expected = IMAGE.astype(int)
    row, column = centre
    expected[max(0, row - 4) : row + 4, max(0, column - 4) : column + 4] = 128
    np.testing.assert_array_equal(apply("Cutout", magnitude=1, centre=centre), expected)


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_an_image_of_one_colour_stays(name):
    image = np.full((20, 28, 3), 77, np.uint8)
    np.testing.assert_array_equal(apply(name, image), image)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_grey_images_become_what_grey_colours_become(name):
    grey = IMAGE[..., :1]
    wide = apply(name, np.repeat(grey, 3, axis=-1), centre=(3, 4))
    if name == "Color":
        wide = np.repeat(grey, 3, axis=-1)
    np.testing.assert_array_equal(apply(name, grey, centre=(3, 4)), wide[..., :1])


# --- Draws, for every image by itself

COUNT = 10_000
IMAGES = noise(6, 12, 10, 3)
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
