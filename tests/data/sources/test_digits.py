import hashlib

import numpy as np
import pytest

from nfnet_jax.data.sources.digits import load_digits
from nfnet_jax.utils.errors import UserError

sklearn_datasets = pytest.importorskip("sklearn.datasets")


@pytest.fixture(scope="module")
def bunch():
    return sklearn_datasets.load_digits()


def rows(images):
    return sorted(map(bytes, images.reshape(len(images), -1)))


def test_every_image_is_in_exactly_one_split(bunch):
    digits = load_digits()
    both = np.concatenate([digits.train.images, digits.test.images])
    assert both.shape == (1797, 8, 8, 1) and both.dtype == np.uint8
    expected = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    assert rows(both) == rows(expected)


def test_images_keep_their_labels(bunch):
    digits = load_digits()
    label_of = {
        np.rint(image * 255 / 16).astype(np.uint8).tobytes(): label
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    for split in (digits.train, digits.test):
        expected = [label_of[image.tobytes()] for image in split.images]
        np.testing.assert_array_equal(split.labels, expected)
        assert split.labels.dtype == np.int32


def test_a_fifth_of_every_class_is_for_test(bunch):
    of_class = np.bincount(bunch.target)
    test = np.bincount(load_digits().test.labels)
    np.testing.assert_allclose(test, 0.2 * of_class, atol=0.5)


def test_split_is_pinned():
    # Results measured on this set are comparable only while the split is the same.
    labels = load_digits().test.labels.astype("<i4").tobytes()
    assert hashlib.sha256(labels).hexdigest().startswith("bf7e26db5dd00503")
    images = load_digits().test.images.tobytes()
    assert hashlib.sha256(images).hexdigest().startswith("2f5eb12f1dfec8a2")


def test_classes_and_range():
    digits = load_digits()
    assert digits.class_names == tuple("0123456789")
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)


def test_splits_by_name():
    digits = load_digits()
    swapped = load_digits("test", "train")
    np.testing.assert_array_equal(swapped.train.images, digits.test.images)
    np.testing.assert_array_equal(swapped.test.labels, digits.train.labels)


def test_image_size():
    assert load_digits(image_size=16).image_shape == (16, 16, 1)


def test_unknown_split_is_named():
    with pytest.raises(UserError, match="data.eval_split is 'tets'.*mean 'test'") as e:
        load_digits("train", "tets")
    assert "\n" not in str(e.value)
