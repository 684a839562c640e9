"""A labelled image data set in memory, and the one function that loads it by name."""

import dataclasses
import functools
import os
import re

import numpy as np

from nfnet_jax.errors import UserError, nearest

# NAME, NAME/CONFIG or NAME:VERSION, as TFDS writes them.
_TFDS_NAME = re.compile(r"[A-Za-z]\w*(/[\w+.\-]+)?(:(\d+|\*)(\.(\d+|\*)){2})?")
# Names offered when a misspelt one resembles them; any other TFDS set works as well.
_WELL_KNOWN = ("digits", "tfds:cifar10", "tfds:cifar100", "tfds:mnist")


# eq=False: arrays have no single truth value, so == would raise.
@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, H, W, C] and their labels int32 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            found = f"{self.images.dtype} {self.images.shape}"
            raise ValueError(f"images must be uint8 [N, H, W, C], not {found}")
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {self.labels.shape}"
            raise ValueError(f"labels must be int32 [N], not {found}")

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split of the same image shape and the same classes."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are 0 … num_classes - 1."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.train.images.shape[1:]

    @property
    def mean(self) -> np.ndarray:
        """Per-channel mean of the training images scaled to [0, 1], float32 [C]."""
        return self._moments[0]

    @property
    def std(self) -> np.ndarray:
        """Per-channel standard deviation on the same scale, float32 [C]; 1 where 0."""
        return self._moments[1]

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        counts = _histograms(self.train.images)
        values = np.arange(256) / 255.0
        share = counts / counts.sum(axis=1, keepdims=True)
        mean = share @ values
        variance = (share * (values - mean[:, None]) ** 2).sum(axis=1)
        # A constant channel carries nothing: dividing by 1 leaves it at 0.
        std = np.where(variance > 0, np.sqrt(variance), 1.0)
        return mean.astype(np.float32), std.astype(np.float32)


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    train_split: str = "train",
    eval_split: str = "test",
    image_size: int | None = None,
    crop: str = "training",
) -> Dataset:
    """Loads the data set `digits`, `tfds:NAME` or `folder:PATH` into memory.

    `data_dir` is where a TFDS set is looked for first, and prepared if need be.
    `image_size` (pixels) resizes the shorter side and crops the centre square; None
    keeps the native size, which a folder does not have. `crop`, one of
    `preprocess.CROPS`, resizes and crops the test split in another way.

    Raises:
      UserError: unknown name or split, data that is absent, damaged, of differing image
        sizes, or too large for the machine's memory.
    """
    check_name(name)
    if image_size is not None and image_size < 1:
        raise UserError(
            f"data.image_size is {image_size}, expected at least 1 or unset"
        )
    if crop != "training" and (name == "digits" or image_size is None):
        found = "data.name is 'digits'" if image_size else "data.image_size is unset"
        raise UserError(
            f"data.crop is {crop!r} and {found}, expected 'training': only images of a"
            " TFDS set or a folder that are resized can be cropped otherwise"
        )
    # Imported here: each source pulls in a library that the other does not need.
    if name == "digits":
        from nfnet_jax.data.digits import load_digits

        return load_digits(train_split, eval_split, image_size)
    if name.startswith("folder:"):
        from nfnet_jax.data.folder import load_folder

        path = name.removeprefix("folder:")
        return load_folder(path, train_split, eval_split, image_size, crop)
    from nfnet_jax.data.tfds_source import load_tfds

    return load_tfds(
        name.removeprefix("tfds:"),
        data_dir,
        train_split,
        eval_split,
        image_size,
        crop,
    )


def check_name(name: str) -> None:
    """Checks the form of a data set's name without loading anything.

    Raises:
      UserError: neither `digits` nor `folder:PATH` nor `tfds:NAME` with a plausible
        NAME.
    """
    if name == "digits":
        return
    kind, _, rest = str(name).partition(":")
    if kind == "tfds" and _TFDS_NAME.fullmatch(rest):
        return
    if kind == "folder" and rest:
        return
    raise UserError(
        f"data.name is {name!r}, expected 'digits', 'folder:PATH' or 'tfds:NAME' with"
        f" NAME such as cifar10 or NAME/CONFIG:1.2.3{_nearest_name(str(name))}"
    )


def _nearest_name(name: str) -> str:
    if os.path.isdir(os.path.expanduser(name)):
        return f"; did you mean 'folder:{name}'?"
    return nearest(name, _WELL_KNOWN)


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the shorter side to `size` pixels (bicubic) and crops the centre square.

    `image`: uint8 [H, W, C] with C of 1, 3 or 4; returns uint8 [size, size, C].
    """
    from PIL import Image

    height, width, channels = image.shape
    if height == width == size:
        return image
    scale = size / min(height, width)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    pixels = image[..., 0] if channels == 1 else image
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    square = resized.crop((left, top, left + size, top + size))
    return np.asarray(square).reshape(size, size, channels)


def _histograms(images: np.ndarray, chunk: int = 4096) -> np.ndarray:
    """Counts of the 256 values in each channel, int64 [C, 256]."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    # In chunks, because bincount works on a copy eight times as large.
    for start in range(0, len(images), chunk):
        for channel in range(channels):
            values = images[start : start + chunk, ..., channel].reshape(-1)
            counts[channel] += np.bincount(values, minlength=256)
    return counts
