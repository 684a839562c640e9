"""Labelled image data sets: two splits, decoded in memory or encoded."""

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

# Of ImageNet [SP, HP], for sets that are too large to be measured.
STREAM_MOMENTS = {
    1: ((0.458,), (0.226,)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
FINGERPRINT_BYTES = 2**26
"""Of a split's images, at most so many are read for its fingerprint."""


class BadImage(Exception):
    """An image that cannot be decoded; the message says why."""


Encoded = bytes | np.ndarray | BadImage
"""An image file's content, pixels uint8 [H, W, C], or why there is neither."""


class Source(Protocol):
    """Random access to the encoded images of a split; can be pickled for a worker."""

    @property
    def channels(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[tuple[Encoded, int]]:
        """Images and labels.

        Raises:
          UserError: the set itself is damaged.
        """
        ...

    def describe(self, index: int) -> str:
        """What a person finds an image by."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """All that the decoded images depend on, as JSON can hold it."""
        ...

    def fingerprint(self, class_names: Sequence[str]) -> str:
        """A digest of images and classes, the same wherever they lie and however the
        classes are numbered; of large sets, of a sample of the images."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Images uint8 [N, H, W, C] and labels int32 [N] that are there already."""

    name: str
    images: np.ndarray
    labels: np.ndarray

    @property
    def channels(self) -> int:
        return self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int]) -> list[tuple[Encoded, int]]:
        return [(self.images[i], int(self.labels[i])) for i in indices]

    def describe(self, index: int) -> str:
        return f"image {index} of {self.name}"

    def identity(self) -> Mapping[str, Any]:
        arrays = (self.images, self.labels)
        digests = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
        return {"arrays": digests}

    def fingerprint(self, class_names: Sequence[str]) -> str:
        names = json.dumps([class_names[label] for label in self.labels])
        digest = hashlib.sha256(f"{self.images.shape}{names}".encode())
        every = -(-self.images.nbytes // FINGERPRINT_BYTES) or 1
        digest.update(self.images[::every].tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedSplit:
    """A split that stays encoded; `image_shape` (H, W, C) is that of its batches.

    `resize`: whether images are resized to that shape, by the rule `crop` of
    `preprocess.CROPS`, or have it already.
    """

    name: str
    source: Source
    image_shape: tuple[int, int, int]
    resize: bool
    crop: str = "training"

    def __len__(self) -> int:
        return len(self.source)


# eq=False: arrays have no single truth value, so == would raise.
@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, H, W, C] and their labels int32 [N].

    `skipped` says of images that are not among them, because they cannot be decoded,
    why not. `source`: what they were decoded from, if they were.
    """

    images: np.ndarray
    labels: np.ndarray
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    source: Source | None = None

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            found = f"{self.images.dtype} {self.images.shape}"
            raise ValueError(f"images must be uint8 [N, H, W, C], not {found}")
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {self.labels.shape}"
            raise ValueError(f"labels must be int32 [N], not {found}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.images.shape[1:]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split of the same classes and number of channels.

    Both are in memory, or both encoded. `image_shape` is that of the training images.
    """

    name: str
    train: Split | EncodedSplit
    test: Split | EncodedSplit
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are 0 … num_classes - 1."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one training image."""
        return self.train.image_shape

    @property
    def mean(self) -> np.ndarray:
        """Per-channel mean of the training images scaled to [0, 1], float32 [C].

        Of an encoded set ImageNet's, and so is `std`.
        """
        return self._moments[0]

    @property
    def std(self) -> np.ndarray:
        """Per-channel standard deviation on the same scale, float32 [C]; 1 where 0."""
        return self._moments[1]

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.train, EncodedSplit):
            known = STREAM_MOMENTS[self.image_shape[-1]]
            return np.asarray(known[0], np.float32), np.asarray(known[1], np.float32)
        count = self.train.images[..., 0].size
        sums, squares = _sums(self.train.images)
        # Of Python's integers, so that a constant channel has exactly none.
        spread = [count * q - s * s for s, q in zip(sums, squares, strict=True)]
        # A constant channel carries nothing: dividing by 1 leaves it at 0.
        std = [math.sqrt(v) / (255 * count) if v else 1.0 for v in spread]
        mean = [s / (255 * count) for s in sums]
        return np.asarray(mean, np.float32), np.asarray(std, np.float32)


def _sums(images: np.ndarray) -> tuple[list[int], list[int]]:
    """The sums of all values of each channel, and of their squares."""
    # Few enough that the copy stays in a cache and that uint32 holds the sums.
    chunk = min(-(-(2**20) // images[0].size), 2**16)

    def add(start: int) -> list[np.ndarray]:
        pixels = images[start : start + chunk].astype(np.uint16)
        sums = pixels.sum(axis=0, dtype=np.uint32)
        pixels *= pixels
        return [sums, pixels.sum(axis=0, dtype=np.uint32)]

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        parts = pool.map(add, range(0, len(images), chunk))
        total = functools.reduce(np.add, parts, np.zeros((2, *images[0].shape), int))
    sums, squares = total.sum(axis=(1, 2)).tolist()
    return sums, squares
