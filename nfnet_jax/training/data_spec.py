"""Image shape, normalization and classes of the data of a run, kept as data.json."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from nfnet_jax.data.class_names import match_classes
from nfnet_jax.data.dataset import Dataset, contents
from nfnet_jax.training.workdir import read_json, write_json
from nfnet_jax.utils.errors import UserError

_CONTENTS = "contents"


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Normalization, class names and image shape of the data of one run.

    `mean` and `std`, one per channel, are of pixels scaled to [0, 1]. `class_names` are
    in the order of the labels. `image_shape` is (H, W, C).

    Raises ValueError for values that do not fit together.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def __post_init__(self):
        height, width, channels = map(int, self.image_shape)
        moments = np.asarray([self.mean, self.std], float).reshape(2, channels)
        if not np.isfinite(moments).all() or not (moments[1] > 0).all():
            raise ValueError(f"mean {self.mean}, std {self.std}: expected std above 0")
        if not self.class_names or min(height, width) < 1:
            raise ValueError("no classes or no pixels")
        if not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(f"class_names {self.class_names}: expected texts")

    @classmethod
    def of_shape(cls, image_shape: tuple[int, int, int], classes: int) -> "DataSpec":
        """The spec of images (H, W, C) with a shape only: noise, or absent data."""
        channels = image_shape[-1]
        names = tuple(map(str, range(classes)))
        return cls((0.5,) * channels, (0.25,) * channels, names, image_shape)

    @classmethod
    def of_dataset(cls, dataset: Dataset, source: Any) -> "DataSpec":
        """The spec of `dataset`, normalized by `mean` and `std` of `source`."""
        # Rounded to float32, which the images are normalized in.
        mean, std = (
            tuple(np.asarray(moment, np.float32).tolist())
            for moment in (source.mean, source.std)
        )
        return cls(mean, std, dataset.class_names, dataset.image_shape)

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """`mean` and `std`, float32 [C]."""
        return np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)


def write_data_spec(
    workdir: str, spec: DataSpec, held: Mapping[str, str] | None = None
) -> None:
    """Writes data.json; `held` are the `contents` of the data set."""
    write_json(_path(workdir), dataclasses.asdict(spec) | {_CONTENTS: held or {}})


def read_data_spec(workdir: str) -> DataSpec:
    """The spec in data.json of a run.

    Raises:
      UserError: there is none, or it is damaged.
    """
    values = read_json(_path(workdir))
    held = values.pop(_CONTENTS, {})
    try:
        dict(held)
        return DataSpec(**{key: tuple(value) for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"{_path(workdir)} is damaged: {error}") from error


def find_data_spec(workdir: str) -> DataSpec | None:
    """The spec by `read_data_spec`; None of a run whose version wrote none."""
    return read_data_spec(workdir) if os.path.exists(_path(workdir)) else None


def check_contents(workdir: str, dataset: Dataset) -> dict[str, str]:
    """The `contents` of `dataset`, on which a run in `workdir` starts or continues.

    Raises:
      UserError: the run there began with other classes or other images.
    """
    held = contents(dataset)
    spec = find_data_spec(workdir)
    if spec is None:
        return held
    began = (
        f"{workdir} holds a run of other data than {dataset.name}, expected those that "
        "it began with or another --workdir"
    )
    try:
        match_classes(dataset.class_names, spec.class_names)
    except ValueError as error:
        raise UserError(f"{began}: {error}") from error
    # data.json of an earlier version has no contents.
    for part, there in read_json(_path(workdir)).get(_CONTENTS, {}).items():
        if there != held.get(part):
            raise UserError(
                f"{began}: the {part} split is {there} there, {held.get(part)} here"
            )
    return held


def _path(workdir: str) -> str:
    return os.path.join(workdir, "data.json")
