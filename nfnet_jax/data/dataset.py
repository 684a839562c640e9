"""Labelled image data sets: two splits, each decoded in memory or encoded."""

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

# Mean and deviation of ImageNet, by channels, for sets too large to be measured.
STREAM_MOMENTS = {
    1: ((0.458,), (0.226,)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
FINGERPRINT_BYTES = 2**26
"""Bytes of a split's images that its fingerprint reads at most."""
_DIGEST_DIGITS = 16


class BadImage(Exception):
    """Image that cannot be decoded; the message is the reason."""


Encoded = bytes | np.ndarray | BadImage
"""Content of an image file, pixels uint8 [H, W, C], or the reason for neither."""


class Source(Protocol):
    """Random access to the encoded images of a split, of `channels` channels.

    Sources are pickled for workers.
    """

    @property
    def channels(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        """Contents or pixels [H, W, C], and labels, of some rows of the split.

        Raises:
          UserError: the set itself is damaged.
        """
        ...

    def describe(self, row: int) -> str:
        """Path or number by which a person finds an image."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Everything that the decoded images depend on, as JSON can hold it."""
        ...

    def fingerprint(self, class_names: Sequence[str]) -> str:
        """Digest of images and classes, independent of their place and of the numbers
        of the classes; large sets are sampled."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Source of images uint8 [N, H, W, C] and labels int32 [N] in memory.

    `channels`, `read`, `describe`, `identity` and `fingerprint` are those of `Source`.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray

    @property
    def channels(self) -> int:
        return self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        return [(self.images[row], int(self.labels[row])) for row in rows]

    def describe(self, row: int) -> str:
        return f"image {row} of {self.name}"

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
    """Split that stays encoded; its batches have `image_shape` (H, W, C).

    `resize`: True if images are resized to that shape by `preprocess.CROPS[crop]`,
    False if they have it already.
    """

    name: str
    source: Source
    image_shape: tuple[int, int, int]
    resize: bool
    crop: str = "training"

    def __len__(self) -> int:
        return len(self.source)


# eq=False: == of arrays has no single truth value and would raise.
@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, H, W, C] and labels int32 [N] in memory.

    `skipped`: reason by image for those left out because they cannot be decoded.
    `source`: the encoded images, if there are any.

    Raises:
      ValueError: arrays of other types or shapes.
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
    """Training and test split of the same classes and number of channels.

    Both are in memory, or both encoded.
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

        Encoded sets have the mean and `std` of ImageNet.
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
        # In Python's integers, so that a constant channel has exactly 0.
        spread = [count * q - s * s for s, q in zip(sums, squares, strict=True)]
        # A constant channel carries nothing: dividing by 1 leaves it at 0.
        std = [math.sqrt(v) / (255 * count) if v else 1.0 for v in spread]
        mean = [s / (255 * count) for s in sums]
        return np.asarray(mean, np.float32), np.asarray(std, np.float32)


def _sums(images: np.ndarray) -> tuple[list[int], list[int]]:
    """Sums of the values of each channel, and of their squares."""
    # Small enough for the CPU's cache and for sums in uint32.
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


def contents(dataset: Dataset) -> dict[str, str]:
    """Sizes and digests: {"train": "1,437 images (0123456789abcdef)", "test": ...}.

    The digest covers images, classes and their order; a run knows its data by it.
    """
    found = {}
    for part in ("train", "test"):
        split = getattr(dataset, part)
        source = split.source
        if isinstance(split, Split) and source is None:
            source = ArraySource(dataset.name, split.images, split.labels)
        digest = source.fingerprint(dataset.class_names)[:_DIGEST_DIGITS]
        found[part] = f"{len(source):,} images ({digest})"
    return found
