"""What a network expects of images, and what its logits mean."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from nfnet_jax.data.class_names import match_classes
from nfnet_jax.data.dataset import Dataset, contents
from nfnet_jax.training.workdir import read_json, write_json
from nfnet_jax.utils.errors import UserError

_CONTENTS = "contents"


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """Kept as data.json in a work directory.

    `mean` and `std`, one a channel, are of pixels scaled to [0, 1]. `image_shape` is
    (H, W, C).
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

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """`mean` and `std`, float32 [C]."""
        return np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)


def write_data_facts(
    workdir: str, facts: DataFacts, holds: Mapping[str, str] | None = None
) -> None:
    """Writes data.json, with the `contents` that the data set `holds`."""
    write_json(_path(workdir), dataclasses.asdict(facts) | {_CONTENTS: holds or {}})


def read_data_facts(workdir: str) -> DataFacts:
    """What data.json of a run says.

    Raises:
      UserError: there is none, or it is damaged.
    """
    values = read_json(_path(workdir))
    holds = values.pop(_CONTENTS, {})
    try:
        dict(holds)
        return DataFacts(**{key: tuple(value) for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"{_path(workdir)} is damaged: {error}") from error


def find_data_facts(workdir: str) -> DataFacts | None:
    """As `read_data_facts`, None where a run of an older version left no data.json."""
    return read_data_facts(workdir) if os.path.exists(_path(workdir)) else None


def check_data(workdir: str, dataset: Dataset) -> dict[str, str]:
    """The `contents` of `dataset`, on which a run in `workdir` starts or continues.

    Raises:
      UserError: the run there began with other classes or other images.
    """
    holds = contents(dataset)
    facts = find_data_facts(workdir)
    if facts is None:
        return holds
    began = (
        f"{workdir} holds a run of other data than {dataset.name}, expected those that "
        "it began with or another --workdir"
    )
    try:
        match_classes(dataset.class_names, facts.class_names)
    except ValueError as error:
        raise UserError(f"{began}: {error}") from error
    # A run of an earlier version does not know its images.
    before = dict(read_json(_path(workdir)).get(_CONTENTS, {}))
    for part, there in before.items():
        if there != holds.get(part):
            raise UserError(
                f"{began}: the {part} split is {there} there, {holds.get(part)} here"
            )
    return holds


def _path(workdir: str) -> str:
    return os.path.join(workdir, "data.json")
