"""Loading a data set by its name: `digits`, `tfds:NAME` or `folder:PATH`."""

import dataclasses
import os
import re
from typing import Any

from nfnet_jax.data.dataset import (
    STREAM_MOMENTS,
    ArraySource,
    Dataset,
    EncodedSplit,
    Split,
)
from nfnet_jax.utils.errors import UserError, nearest

# NAME, NAME/CONFIG or NAME:VERSION, as TFDS writes them.
_TFDS_NAME = re.compile(r"[A-Za-z]\w*(/[\w+.\-]+)?(:(\d+|\*)(\.(\d+|\*)){2})?")
# Names offered when a misspelt one resembles them; any other TFDS set works as well.
_WELL_KNOWN = ("digits", "tfds:cifar10", "tfds:cifar100", "tfds:mnist")


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    train_split: str = "train",
    eval_split: str = "test",
    image_size: int | None = None,
    eval_image_size: int | None = None,
    crop: str = "training",
    loader: str = "memory",
    max_bad_fraction: float = 0.01,
) -> Dataset:
    """Loads a data set by its name.

    Args:
      name: `digits`, `tfds:NAME` or `folder:PATH`.
      data_dir: directory searched first for a TFDS set, and to prepare it in.
      train_split: examples to train on, by TFDS's syntax ('train[:90%]').
      eval_split: examples to evaluate on.
      image_size: pixels to which the shorter side is resized before the centre square
        is cropped. None keeps the native size, which a folder does not have.
      eval_image_size: size of evaluation images; None: `image_size`.
      crop: rule of `preprocess.CROPS` that resizes and crops evaluation images.
      loader: `memory` decodes both splits now; `stream` leaves them encoded; `auto`
        decodes sets of at most a quarter of the machine's and of a device's memory.
      max_bad_fraction: share of a split's images that may be broken; they are left out.

    Raises:
      UserError: unknown name or split, data that is absent, damaged, of differing image
        sizes, or too large for the machine's memory.
    """
    check_name(name)
    if image_size is not None and image_size < 1:
        raise UserError(
            f"data.image_size is {image_size}, expected at least 1 or unset"
        )
    dataset = _open(name, data_dir, train_split, eval_split, image_size)
    if crop != "training" or eval_image_size is not None:
        dataset = _set_test_crop(dataset, crop, eval_image_size)
    if loader == "stream":
        return encoded(dataset)
    if isinstance(dataset.train, Split):
        return dataset
    # Imported here: it imports JAX.
    from nfnet_jax.data.decoding import decode_dataset, is_large

    if loader == "auto" and is_large(dataset):
        return encoded(dataset)
    return decode_dataset(dataset, max_bad_fraction)


def find_dataset(
    name: str, *, data_dir: str | os.PathLike | None = None, **options: Any
) -> Dataset | None:
    """Opens a data set without downloading or decoding anything.

    Options and errors are those of `load_dataset` up to `image_size`; None for a TFDS
    set that is not prepared here.
    """
    check_name(name)
    if name.startswith("tfds:"):
        from nfnet_jax.data.sources.tfds_builder import find

        if find(name.removeprefix("tfds:"), data_dir) is None:
            return None
    return _open(name, data_dir, **options)


def check_preparable(name: str, data_dir: str | os.PathLike | None) -> None:
    """Raises UserError if the set `tfds:NAME` cannot be prepared here."""
    from nfnet_jax.data.sources import tfds_builder

    tfds_builder.check_preparable(name.removeprefix("tfds:"), data_dir)


def _open(
    name, data_dir, train_split="train", eval_split="test", image_size=None
) -> Dataset:
    # Imported here: each source imports a library that the others do not need.
    if name == "digits":
        from nfnet_jax.data.sources.digits import load_digits

        return load_digits(train_split, eval_split, image_size)
    if name.startswith("folder:"):
        from nfnet_jax.data.sources.folder import open_folder

        path = name.removeprefix("folder:")
        return open_folder(path, train_split, eval_split, image_size)
    from nfnet_jax.data.sources.tfds import open_tfds

    return open_tfds(
        name.removeprefix("tfds:"), data_dir, train_split, eval_split, image_size
    )


def _set_test_crop(dataset: Dataset, crop: str, size: int | None) -> Dataset:
    """The same set with another crop and size for the test images."""
    test = dataset.test
    if not isinstance(test, EncodedSplit) or not test.resize:
        key, value = ("crop", crop) if size is None else ("eval_image_size", size)
        raise UserError(
            f"data.{key} is {value!r}, and images of {dataset.name} are not resized: "
            "set data.image_size of a TFDS set or a folder, or leave it out"
        )
    height, _, channels = test.image_shape
    shape = (size or height, size or height, channels)
    test = dataclasses.replace(test, crop=crop, image_shape=shape)
    return dataclasses.replace(dataset, test=test)


def encoded(dataset: Dataset) -> Dataset:
    """The same set with both splits encoded, for a stream; raises UserError if images
    are neither grey nor RGB, or the number of classes is unknown."""
    channels = dataset.image_shape[-1]
    if channels not in STREAM_MOMENTS:
        raise UserError(
            f"{dataset.name} has images of {channels} channels, a stream takes grey "
            "and RGB: set data.loader=memory"
        )
    if not dataset.class_names:
        raise UserError(
            f"{dataset.name} does not say how many classes it has, as a stream needs: "
            "set data.loader=memory"
        )
    parts: dict[str, Any] = {
        part: EncodedSplit(
            f"{dataset.name} {part}",
            ArraySource(f"{dataset.name} {part}", split.images, split.labels),
            split.image_shape,
            resize=False,
        )
        for part in ("train", "test")
        if isinstance(split := getattr(dataset, part), Split)
    }
    return dataclasses.replace(dataset, **parts)


def check_name(name: str) -> None:
    """Raises UserError unless the form of a data set's name is `digits`, `folder:PATH`
    or `tfds:NAME`; nothing is loaded."""
    kind, _, rest = str(name).partition(":")
    known = kind == "folder" and rest or kind == "tfds" and _TFDS_NAME.fullmatch(rest)
    if known or name == "digits":
        return
    is_folder = os.path.isdir(os.path.expanduser(str(name)))
    hint = f"; did you mean 'folder:{name}'?" if is_folder else ""
    hint = hint or nearest(str(name), _WELL_KNOWN)
    raise UserError(
        f"data.name is {name!r}, expected 'digits', 'folder:PATH' or 'tfds:NAME' with"
        f" NAME such as cifar10 or NAME/CONFIG:1.2.3{hint}"
    )
