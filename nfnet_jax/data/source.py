"""Splits whose images are decoded when their turn comes."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

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
