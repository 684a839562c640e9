"""Splits by TFDS's syntax, of arrays and of the digits of scikit-learn."""

import hashlib

import numpy as np
import pytest
import sklearn.datasets
from data_sets import refusal

from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.sources.arrays import from_arrays
from nfnet_jax.data.sources.splits import select

SIZES = {"train": 105, "test": 10}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("train", {"train": range(105)}),
        ("train[:90%]", {"train": range(94)}),
        ("train[90%:]", {"train": range(94, 105)}),
        ("train[10%:20%] + test", {"train": range(10, 21), "test": range(10)}),
        ("test[-3:]+train[100:]", {"test": range(7, 10), "train": range(100, 105)}),
        ("all", {"train": range(105), "test": range(10)}),
    ],
)
def test_what_is_selected(spec, expected):
    found = select(spec, SIZES, "train_split", "digits")
    assert {name: indices.tolist() for name, indices in found} == {
        name: list(indices) for name, indices in expected.items()
    }


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("tran[:10%]", "digits has train, test; did you mean 'train'?"),
        ("train[", "such as train[:90%]"),
        ("train[:200%]", "such as train[:90%]"),
        ("train[5:5]", "holds no examples"),
    ],
)
def test_what_is_refused(spec, hint):
    line = refusal(select, spec, SIZES, "train_split", "digits")
    assert f"data.train_split is {spec!r}" in line and hint in line


def test_slices_of_digits(digits):
    part = load_dataset("digits", train_split="test[:30]+train[-20:]")
    np.testing.assert_array_equal(part.train.images[:30], digits.test.images[:30])
    np.testing.assert_array_equal(part.train.labels[30:], digits.train.labels[-20:])


IMAGES, LABELS = np.zeros((6, 4, 5, 3), np.uint8), np.arange(6)


def test_arrays_are_split_and_named():
    dataset = from_arrays(
        {"train": (IMAGES, LABELS)}, train_split="train[:4]", eval_split="train[4:]"
    )
    assert dataset.train.labels.tolist() == [0, 1, 2, 3]
    assert dataset.test.labels.tolist() == [4, 5]
    assert dataset.class_names == tuple("012345")
    assert dataset.image_shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("images", "labels", "options", "hint"),
    [
        (IMAGES.astype(float), LABELS, {}, "are float64 (6, 4, 5, 3), expected uint8"),
        (IMAGES[0], LABELS, {}, "are uint8 (4, 5, 3), expected uint8 [N, H, W, C]"),
        (IMAGES, LABELS[:5], {}, "are int64 (5,), expected whole numbers [6]"),
        (IMAGES, LABELS / 2, {}, "are float64 (6,), expected whole numbers"),
        (IMAGES, LABELS - 1, {}, "has the label -1"),
        (IMAGES, LABELS, {"class_names": "abcde"}, "has the label 5, expected less"),
        (IMAGES, LABELS, {"eval_split": "tran"}, "is 'tran', arrays has train; did"),
    ],
)
def test_wrong_arrays(images, labels, options, hint):
    options = {"eval_split": "train"} | options
    assert hint in refusal(from_arrays, {"train": (images, labels)}, **options)


def test_shapes_must_agree():
    arrays = {"train": (IMAGES, LABELS), "test": (IMAGES[:, 1:], LABELS)}
    assert "differing shapes" in refusal(from_arrays, arrays)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_every_digit_is_in_one_split_and_keeps_its_label(digits):
    bunch = sklearn.datasets.load_digits()
    pixels = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    expected = zip(map(bytes, pixels), bunch.target, strict=True)
    found = [
        (bytes(image), label)
        for split in (digits.train, digits.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(found) == sorted(expected)
    assert digits.class_names == tuple("0123456789")
    of_class, of_test = map(np.bincount, (bunch.target, digits.test.labels))
    np.testing.assert_allclose(of_test, 0.2 * of_class, atol=0.5)


def test_split_of_the_digits_is_pinned(digits):
    # Results measured on this set are comparable only while the split is the same.
    for array, digest in (
        (digits.test.labels.astype("<i4"), "bf7e26db5dd00503"),
        (digits.test.images, "2f5eb12f1dfec8a2"),
    ):
        assert hashlib.sha256(array.tobytes()).hexdigest().startswith(digest)


def test_image_size_of_the_digits():
    assert load_dataset("digits", image_size=16).image_shape == (16, 16, 1)
    assert "data.image_size is 0" in refusal(load_dataset, "digits", image_size=0)
