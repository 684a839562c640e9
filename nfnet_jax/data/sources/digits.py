"""scikit-learn's bundled handwritten digits: real images that need no download."""

import numpy as np

from nfnet_jax.data.dataset import Dataset
from nfnet_jax.data.images.preprocess import resize_and_crop
from nfnet_jax.data.sources.arrays import from_arrays

_TEST_FRACTION = 0.2
# Never change it: every number measured on this data set depends on it.
_SPLIT_SEED = 0


def load_digits(
    train_split: str = "train", eval_split: str = "test", image_size: int | None = None
) -> Dataset:
    """Loads 1,797 grey 8x8 digits, 80 % train and 20 % test of every class.

    Images are uint8 [N, 8, 8, 1] (the 17 grey levels spread over 0 … 255), or
    [N, image_size, image_size, 1]. The split is the same on every machine.

    Raises:
      UserError: a split other than 'train', 'test' and slices of them.
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    if image_size is not None:
        images = np.stack([resize_and_crop(image, image_size) for image in images])
    labels = bunch.target.astype(np.int32)
    is_test = _test_mask(labels)
    return from_arrays(
        {
            "train": (images[~is_test], labels[~is_test]),
            "test": (images[is_test], labels[is_test]),
        },
        train_split=train_split,
        eval_split=eval_split,
        class_names=tuple(str(digit) for digit in range(10)),
        name="digits",
    )


def _test_mask(labels: np.ndarray) -> np.ndarray:
    """Mask bool [N] of the test images, the same share of every class."""
    # NumPy's policy freezes the streams of RandomState, but not those of its newer
    # generators.
    random = np.random.RandomState(_SPLIT_SEED)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        mask[members[: round(_TEST_FRACTION * len(members))]] = True
    return mask
