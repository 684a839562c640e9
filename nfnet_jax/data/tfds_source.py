"""TFDS image classification sets, read without TensorFlow and decoded once.

A prepared directory is read record by record, in the order on disk; the decoded arrays
are kept, see `decoded_cache`.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import file_adapters, naming, read_only_builder
from tensorflow_datasets.core import registered as registry

from nfnet_jax.data import cifar
from nfnet_jax.data.dataset import Dataset, Split
from nfnet_jax.data.decoded_cache import DecodedCache
from nfnet_jax.data.decoding import check_memory, map_blocks
from nfnet_jax.data.preprocess import crop_to_size
from nfnet_jax.errors import UserError, nearest

_IMAGE_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_RECORDS_PER_READ = 256
# Part of the cache key: raise it when decoding changes what the arrays hold.
_CACHE_FORMAT = 1


def load_tfds(
    name: str,
    data_dir: str | os.PathLike | None,
    train_split: str,
    eval_split: str,
    image_size: int | None,
    crop: str = "training",
) -> Dataset:
    """Loads a TFDS set such as `cifar10` or `imagenette/160px:1.0.0` into memory.

    Splits may be sliced ('train[:90%]'). Images are uint8 [N, H, W, C] of the native
    size, or [N, image_size, image_size, C]; grey images have C = 1. `crop`, one of
    `preprocess.CROPS`, is how those of the evaluation split are resized.

    Raises:
      UserError: the set or split is unknown, absent, damaged, holds no images with
        labels, has images of differing sizes, or does not fit in memory.
    """
    builder = find_or_prepare(name, data_dir)
    image_key, label_key = _find_features(name, builder.info)
    _check_split("train_split", train_split, builder)
    _check_split("eval_split", eval_split, builder)
    readers = [
        _SplitReader(name, builder, split, image_key, label_key, image_size, rule)
        for split, rule in ((train_split, "training"), (eval_split, crop))
    ]
    cached = [reader.read_cache() for reader in readers]
    if any(split is None for split in cached):
        needed = sum(len(r) * math.prod(r.image_shape) for r in readers)
        remedy = "set a smaller data.image_size, or slice the splits (train[:10%])"
        check_memory(f"tfds:{name}", needed, remedy)
    train, test = (
        reader.decode_and_cache() if split is None else split
        for split, reader in zip(cached, readers, strict=True)
    )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise _differing_sizes(name, train.images.shape[1:], test.images.shape[1:])
    class_names = builder.info.features[label_key].names
    if not class_names:
        highest = max(train.labels.max(), test.labels.max())
        class_names = [str(label) for label in range(highest + 1)]
    return Dataset(f"tfds:{name}", train, test, tuple(class_names))


# --- Finding the prepared directory -------------------------------------------------


def find_or_prepare(
    name: str, data_dir: str | os.PathLike | None = None
) -> tfds.core.DatasetBuilder:
    """A TFDS builder whose data are on disk, prepared now if they were not.

    Looks in `data_dir`, $TFDS_DATA_DIR and TFDS's default directory, in this order, and
    prepares into the first of them.

    Raises:
      UserError: the set is unknown, unreadable here, or could not be prepared.
    """
    directories = _search_directories(data_dir)
    builder = _find_prepared(name, directories)
    if builder is None:
        _prepare(name, directories)
        builder = _find_prepared(name, directories[:1])
    if builder is None:
        raise UserError(
            f"{directories[0]} has a directory for tfds:{name} that is not a prepared"
            " data set; delete that directory and prepare it again"
        )
    return builder


def _search_directories(data_dir: str | os.PathLike | None) -> list[Path]:
    default = Path("~/tensorflow_datasets")
    candidates = (data_dir, os.environ.get("TFDS_DATA_DIR"), default)
    paths = [Path(path).expanduser().absolute() for path in candidates if path]
    return list(dict.fromkeys(paths))


def _find_prepared(
    name: str, directories: Sequence[Path]
) -> tfds.core.DatasetBuilder | None:
    base, options = naming.parse_builder_name_kwargs(name)
    unreadable = None
    for directory in directories:
        try:
            # From the files alone, so that a set prepared by an older or newer TFDS, or
            # by code that is not installed here, is found too.
            builder = read_only_builder.builder_from_files(
                str(base), data_dir=os.fspath(directory), **options
            )
        except registry.DatasetNotFoundError:
            continue
        except Exception as error:
            raise UserError(
                f"tfds:{name} in {directory / str(base)} is damaged"
                f" ({_one_line(error)}); delete that directory and prepare it again"
            ) from error
        if builder.info.file_format in file_adapters.FileFormat.with_random_access():
            return builder
        unreadable = builder
    if unreadable is not None:
        raise UserError(
            f"tfds:{name} in {unreadable.data_path} is in the format"
            f" {unreadable.info.file_format.value}, which only TensorFlow reads;"
            " prepare it as array_record in another directory and set data.dir to that"
        )
    return None


def _prepare(name: str, directories: Sequence[Path]) -> None:
    absent = f"tfds:{name} is not prepared in {', '.join(map(str, directories))}"
    builder = _stock_builder(name, directories[0], absent)
    if builder.name in cifar.NAMES:
        try:
            cifar.prepare(builder.name, directories[0])
        except UserError as error:
            raise UserError(f"{absent}, and {error}") from error
        return
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"{absent}; preparing it once needs TensorFlow: pip install"
            " 'nfnet_jax[prepare]', or set data.dir to a directory that has it prepared"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise UserError(
            f"{absent}, and preparing it failed: {_one_line(error)}"
        ) from error


def _stock_builder(name: str, directory: Path, absent: str) -> tfds.core.DatasetBuilder:
    base, options = naming.parse_builder_name_kwargs(name)
    config = options.get("config")
    try:
        configs = list(tfds.builder_cls(str(base)).builder_configs)
        if config is None or config in configs:
            return tfds.builder(
                name, data_dir=os.fspath(directory), file_format="array_record"
            )
    except registry.DatasetNotFoundError as error:
        # Not tfds.list_builders, which needs TensorFlow.
        hint = nearest(str(base), registry.list_imported_builders())
        raise UserError(
            f"{absent}, and TFDS knows no set {str(base)!r}{hint}"
        ) from error
    except Exception as error:
        raise UserError(f"{absent}: {_one_line(error)}") from error
    raise UserError(
        f"{absent}, and {base} has no configuration {config!r}, expected"
        f" {', '.join(configs[:8]) or 'none'}{', …' if len(configs) > 8 else ''}"
        f"{nearest(config, configs)}"
    )


# --- What the set holds -------------------------------------------------------------


def _find_features(name: str, info: tfds.core.DatasetInfo) -> tuple[str, str]:
    """Keys of the image and of the label, found by type."""
    features = info.features
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    by_type = {
        kind: [key for key in features if isinstance(features[key], kind)]
        if is_dict
        else []
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    }
    image_key = _choose(by_type[tfds.features.Image], "image", info.supervised_keys)
    label_key = _choose(
        by_type[tfds.features.ClassLabel], "label", info.supervised_keys
    )
    if image_key is None or label_key is None:
        found = ", ".join(sorted(features)) if is_dict else type(features).__name__
        raise UserError(
            f"tfds:{name} is no image classification set: expected one image and one"
            f" class label, found the features {found}"
        )
    feature = features[image_key]
    if np.dtype(feature.np_dtype) != np.uint8 or feature.shape[-1] not in _IMAGE_MODES:
        raise UserError(
            f"tfds:{name} has {np.dtype(feature.np_dtype)} images of"
            f" {feature.shape[-1]} channels, expected uint8 of 1, 3 or 4"
        )
    return image_key, label_key


def _choose(
    keys: Sequence[str], usual: str, supervised_keys: Sequence[str] | None
) -> str | None:
    """The supervised key, else the usual one, else the only one."""
    for key in (*(supervised_keys or ()), usual):
        if key in keys:
            return key
    return keys[0] if len(keys) == 1 else None


def _check_split(
    config_key: str, split: str, builder: tfds.core.DatasetBuilder
) -> None:
    known = list(builder.info.splits)
    try:
        count = builder.info.splits[split].num_examples
    except Exception as error:
        for part in split.split("+"):
            base = part.split("[")[0].strip()
            if base not in known:
                raise UserError(
                    f"data.{config_key} is {split!r}, {builder.info.full_name} has"
                    f" {', '.join(known)}{nearest(base, known)}"
                ) from error
        raise UserError(
            f"data.{config_key} is {split!r}, expected a split or a slice of one such"
            f" as {known[0]}[:90%]"
        ) from error
    if count == 0:
        raise UserError(f"data.{config_key} is {split!r}, which holds no examples")


def _differing_sizes(
    name: str, first: Sequence[int], other: Sequence[int]
) -> UserError:
    return UserError(
        f"tfds:{name} has images of differing sizes ({first[0]}x{first[1]} and"
        f" {other[0]}x{other[1]}): set data.image_size to resize them"
    )


def _one_line(error: BaseException) -> str:
    """The first line of an exception, without the prefix that TFDS puts before it."""
    text = re.sub(r"^Failed to construct dataset .*?}\": ", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


# --- Reading a split ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _SplitReader:
    """Decodes one split, or takes its arrays from the cache."""

    name: str
    builder: tfds.core.DatasetBuilder
    split: str
    image_key: str
    label_key: str
    image_size: int | None
    crop: str

    def __len__(self) -> int:
        return self.builder.info.splits[self.split].num_examples

    @functools.cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the decoded images; a guess from the first where it is open."""
        height, width, channels = self.builder.info.features[self.image_key].shape
        if self.image_size is not None:
            return (self.image_size, self.image_size, channels)
        if height is None or width is None:
            return self._read([0])[0][0].shape
        return (height, width, channels)

    @functools.cached_property
    def _source(self) -> Sequence[dict]:
        skip = {self.image_key: tfds.decode.SkipDecoding()}
        return self.builder.as_data_source(split=self.split, decoders=skip)

    def _read(self, indices: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """Images uint8 [h, w, C] and labels of some records.

        Raises:
          UserError: a record is missing or damaged.
        """
        try:
            return [
                (self._decode(record[self.image_key]), int(record[self.label_key]))
                for record in self._source.__getitems__(list(indices))
            ]
        except Exception as error:
            raise UserError(
                f"tfds:{self.name} in {self.builder.data_path} is damaged near record"
                f" {indices[0]} of {self.split!r} ({_one_line(error)}); delete that"
                " directory and prepare it again"
            ) from error

    def _decode(self, encoded: bytes) -> np.ndarray:
        channels = self.builder.info.features[self.image_key].shape[-1]
        image = Image.open(io.BytesIO(encoded)).convert(_IMAGE_MODES[channels])
        pixels = np.asarray(image).reshape(image.height, image.width, channels)
        if self.image_size is None:
            return pixels
        return crop_to_size(pixels, self.crop, self.image_size)

    def decode_and_cache(self) -> Split:
        """Decodes every record, and stores the arrays for the next time."""
        split = self._decode_all()
        self.cache.write(split)
        return split

    def _decode_all(self) -> Split:
        images = np.empty((len(self), *self.image_shape), np.uint8)
        labels = np.empty(len(self), np.int32)

        def fill(start: int) -> int:
            indices = range(start, min(start + _RECORDS_PER_READ, len(labels)))
            for index, (image, label) in zip(indices, self._read(indices), strict=True):
                if image.shape != images.shape[1:]:
                    raise _differing_sizes(self.name, images.shape[1:], image.shape)
                images[index], labels[index] = image, label
            return len(indices)

        map_blocks(
            fill, len(labels), _RECORDS_PER_READ, f"decoding {self.name} {self.split}"
        )
        if labels.min() < 0:
            raise UserError(
                f"{self.split!r} of tfds:{self.name} has examples without a label;"
                " choose another data.train_split or data.eval_split"
            )
        return Split(images, labels)

    def read_cache(self) -> Split | None:
        """The arrays stored by an earlier call, or None where absent or damaged."""
        return self.cache.read(len(self))

    @property
    def cache(self) -> DecodedCache:
        info_file = Path(self.builder.data_path) / "dataset_info.json"
        full_name = self.builder.info.full_name
        identity = {
            "format": _CACHE_FORMAT,
            "set": full_name,
            "split": self.split,
            "image_size": self.image_size,
            "crop": self.crop,
            "features": [self.image_key, self.label_key],
            "dataset_info": hashlib.sha256(info_file.read_bytes()).hexdigest(),
        }
        readable = f"{full_name}-{self.split}"
        return DecodedCache(f"tfds:{self.name}", readable, identity)
