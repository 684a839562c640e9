"""Splits, their moments, and names of data sets."""

import subprocess
import sys

import numpy as np
import pytest
from data_sets import noise, refusal

from nfnet_jax.data.dataset import Dataset, Split
from nfnet_jax.data.load import check_name, load_dataset


def make_dataset(images):
    split = Split(images, np.zeros(len(images), np.int32))
    return Dataset("made", split, split, ("a", "b"))


def test_mean_and_std_equal_float64():
    images = noise(9001, 3, 5, 3)
    dataset = make_dataset(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, scaled.mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(dataset.std, scaled.std((0, 1, 2)), rtol=1e-7)
    assert dataset.mean.dtype == dataset.std.dtype == np.float32


def test_moments_of_more_bright_pixels_than_32_bits_count():
    images = np.full((70_000, 1, 1, 1), 255, np.uint8)
    images[:1] = 0
    dataset = make_dataset(images)
    share = 1 - 1 / len(images)
    np.testing.assert_allclose(dataset.mean, [share], rtol=1e-7)
    np.testing.assert_allclose(dataset.std, [(share / len(images)) ** 0.5], rtol=1e-6)


def test_std_of_a_constant_channel_is_one():
    dataset = make_dataset(np.full((4, 2, 2, 1), 51, np.uint8))
    np.testing.assert_allclose(dataset.mean, [0.2], rtol=1e-6)
    np.testing.assert_array_equal(dataset.std, [1.0])


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((4, 2, 2, 1), np.float32), np.zeros(4, np.int32)),
        (np.zeros((4, 2, 2), np.uint8), np.zeros(4, np.int32)),
        (np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int64)),
        (np.zeros((4, 2, 2, 1), np.uint8), np.zeros(3, np.int32)),
    ],
)
def test_split_holds_only_its_types(images, labels):
    with pytest.raises(ValueError, match="must be"):
        Split(images, labels)


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        "folder:~/pictures",
        "tfds:cifar10",
        "tfds:cats_vs_dogs:4.0.1",
        "tfds:imagenette/160px-v2:1.0.0",
        "tfds:cifar10:3.*.*",
    ],
)
def test_check_name_accepts(name):
    check_name(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar10", "did you mean 'tfds:cifar10'"),
        ("digit", "did you mean 'digits'"),
        ("tfds:", "NAME such as"),
        ("tfds:../x", "expected 'digits', 'folder:PATH' or 'tfds:NAME'"),
        ("tfds:cifar10:3", "did you mean 'tfds:cifar10'"),
        ("folder:", "expected 'digits', 'folder:PATH'"),
        ("/", "did you mean 'folder:/'?"),
        ("two\nlines", "expected 'digits', 'folder:PATH' or 'tfds:NAME'"),
        (None, "data.name is None"),
    ],
)
def test_check_name_refuses(name, hint):
    assert hint in refusal(check_name, name)
    assert hint in refusal(load_dataset, name)


def test_only_the_library_of_the_set_is_imported():
    code = """
import sys
from nfnet_jax.data.load import (check_name, load_dataset)
check_name("tfds:cifar10")
heavy = {"sklearn", "tensorflow_datasets", "PIL", "jax", "tensorflow"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
load_dataset("digits")
assert "tensorflow_datasets" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
