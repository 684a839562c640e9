"""TFDS image classification sets, read without TensorFlow in the order on disk."""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from nfnet_jax.data.dataset import BadImage, Dataset, Encoded, EncodedSplit
from nfnet_jax.data.decoding import check_shape, decode
from nfnet_jax.data.images.decode import MODES, decode_image
from nfnet_jax.data.sources.splits import select
from nfnet_jax.data.sources.tfds_builder import find_or_prepare, one_line
from nfnet_jax.utils.errors import UserError

_FINGERPRINT_RECORDS = 512
_JPEG = b"\xff\xd8"


def open_tfds(
    name: str,
    data_dir: str | os.PathLike | None,
    train_split: str,
    eval_split: str,
    image_size: int | None,
) -> Dataset:
    """Opens a TFDS set such as `cifar10` or `imagenette/160px:1.0.0`, undecoded.

    Splits may be sliced ('train[:90%]'). Images will be uint8 [N, H, W, C] of the
    native size, or [N, image_size, image_size, C]; grey images have C = 1.

    Raises:
      UserError: the set or split is unknown, absent, damaged, or holds no images with
        labels.
    """
    builder = find_or_prepare(name, data_dir)
    image_key, label_key = _find_features(name, builder.info)
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    select(train_split, sizes, "train_split", builder.info.full_name)
    select(eval_split, sizes, "eval_split", builder.info.full_name)
    train, test = (
        _open_split(TfdsSource(name, builder, split, image_key, label_key), image_size)
        for split in (train_split, eval_split)
    )
    check_shape(train, test.image_shape)
    label = builder.info.features[label_key]
    class_names = label.names or [str(i) for i in range(label.num_classes or 0)]
    return Dataset(f"tfds:{name}", train, test, tuple(class_names))


# --- Features and splits -------------------------------------------------------------


def _find_features(name: str, info: tfds.core.DatasetInfo) -> tuple[str, str]:
    """Keys of the image and the label features, found by type."""
    features = info.features
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    fields = dict(features.items()) if is_dict else {}

    def find(kind: type, usual: str) -> str | None:
        """The supervised key, else the usual one, else the only one."""
        keys = [key for key, feature in fields.items() if isinstance(feature, kind)]
        preferred = (*(info.supervised_keys or ()), usual, *keys * (len(keys) == 1))
        return next((key for key in preferred if key in keys), None)

    image_key = find(tfds.features.Image, "image")
    label_key = find(tfds.features.ClassLabel, "label")
    if image_key is None or label_key is None:
        found = ", ".join(sorted(features)) if is_dict else type(features).__name__
        raise UserError(
            f"tfds:{name} is no image classification set: expected one image and one"
            f" class label, found the features {found}"
        )
    feature = features[image_key]
    if np.dtype(feature.np_dtype) != np.uint8 or feature.shape[-1] not in MODES:
        raise UserError(
            f"tfds:{name} has {np.dtype(feature.np_dtype)} images of"
            f" {feature.shape[-1]} channels, expected uint8 of 1, 3 or 4"
        )
    return image_key, label_key


# --- Reading a split ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """Source of the undecoded records of one split."""

    name: str
    builder: tfds.core.DatasetBuilder
    split: str
    image_key: str
    label_key: str

    @property
    def channels(self) -> int:
        return self.builder.info.features[self.image_key].shape[-1]

    def __len__(self) -> int:
        return self.builder.info.splits[self.split].num_examples

    @functools.cached_property
    def _records(self) -> Any:
        skip = {self.image_key: tfds.decode.SkipDecoding()}
        return self.builder.as_data_source(split=self.split, decoders=skip)

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        """Encoded images and labels of some records; UserError for one that is missing,
        damaged or without a label."""
        try:
            examples: list[tuple[Encoded, int]] = [
                (bytes(record[self.image_key]), int(record[self.label_key]))
                for record in self._records.__getitems__(list(rows))
            ]
        except Exception as error:
            raise UserError(
                f"tfds:{self.name} in {self.builder.data_path} is damaged near record"
                f" {rows[0]} of {self.split!r} ({one_line(error)}); prepare it in"
                " another directory and set data.dir to that"
            ) from error
        if any(label < 0 for _, label in examples):
            raise UserError(
                f"{self.split!r} of tfds:{self.name} has examples without a label;"
                " choose another data.train_split or data.eval_split"
            )
        return examples

    def describe(self, row: int) -> str:
        return f"record {row} of {self.split!r} of tfds:{self.name}"

    def identity(self) -> Mapping[str, Any]:
        paths = sorted(Path(self.builder.data_path).iterdir())
        files = [(path.name, path.stat()) for path in paths]
        return {
            "set": self.builder.info.full_name,
            "split": self.split,
            "features": [self.image_key, self.label_key],
            # Unlike the time of modification, ctime cannot be set.
            "files": [[n, s.st_size, s.st_ctime_ns, s.st_ino] for n, s in files],
        }

    def fingerprint(self, class_names: Sequence[str]) -> str:
        every = -(-len(self) // _FINGERPRINT_RECORDS)
        digest = hashlib.sha256(f"{len(self)} every {every}".encode())
        for encoded, label in self.read(range(0, len(self), every)):
            digest.update(f"\0{class_names[label]}\0".encode())
            digest.update(_pixels(encoded, self.channels))
        return digest.hexdigest()


def _pixels(encoded: Encoded, channels: int) -> bytes:
    """Bytes of an image that do not depend on the version of the library that wrote it:
    content of a JPEG, pixels of lossless formats."""
    assert isinstance(encoded, bytes)
    if encoded.startswith(_JPEG):
        return encoded
    try:
        return decode_image(encoded, channels).tobytes()
    except BadImage:
        return encoded


def _open_split(source: TfdsSource, image_size: int | None) -> EncodedSplit:
    name = f"{source.builder.info.full_name} {source.split}"
    if image_size is not None:
        shape = (image_size, image_size, source.channels)
        return EncodedSplit(name, source, shape, resize=True)
    shape = source.builder.info.features[source.image_key].shape
    split = EncodedSplit(name, source, shape, resize=False)
    if None not in shape:
        return split
    return dataclasses.replace(split, image_shape=_first_shape(split))


def _first_shape(split: EncodedSplit) -> tuple[int, int, int]:
    """Shape of the first image that is not broken."""
    for row in range(len(split)):
        with contextlib.suppress(BadImage):
            return decode(split, split.source.read([row])[0][0]).shape
    raise UserError(f"{split.name} holds no image that can be decoded")
