"""Splits by TFDS's syntax, of digits and of arrays."""

import numpy as np
import pytest

from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.sources.arrays import from_arrays
from nfnet_jax.data.sources.splits import select
from nfnet_jax.utils.errors import UserError

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
    with pytest.raises(UserError) as error:
        select(spec, SIZES, "train_split", "digits")
    message = str(error.value)
    assert "\n" not in message and f"data.train_split is {spec!r}" in message
    assert hint in message


def test_slices_of_digits():
    whole = load_dataset("digits")
    part = load_dataset("digits", train_split="test[:30]+train[-20:]")
    np.testing.assert_array_equal(part.train.images[:30], whole.test.images[:30])
    np.testing.assert_array_equal(part.train.labels[30:], whole.train.labels[-20:])


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
        (IMAGES, LABELS, {"eval_split": "test"}, "data.eval_split is 'test'"),
    ],
)
def test_wrong_arrays(images, labels, options, hint):
    options = {"eval_split": "train"} | options
    with pytest.raises(UserError) as error:
        from_arrays({"train": (images, labels)}, **options)
    assert hint in str(error.value) and "\n" not in str(error.value)


def test_shapes_must_agree():
    with pytest.raises(UserError, match="differing shapes"):
        from_arrays({"train": (IMAGES, LABELS), "test": (IMAGES[:, 1:], LABELS)})
