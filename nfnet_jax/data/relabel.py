"""A data set whose classes are numbered as those of a network."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nfnet_jax.data.class_names import match_classes
from nfnet_jax.data.dataset import Dataset, Encoded, EncodedSplit, Source, Split


def relabel(dataset: Dataset, class_names: Sequence[str]) -> Dataset:
    """The same examples in the same order, labelled by their place in `class_names`.

    Raises:
      ValueError: a class of the set is not among them.
    """
    numbers = match_classes(dataset.class_names, class_names, whole=False)
    names = tuple(class_names)
    if numbers == list(range(len(names))):
        return dataclasses.replace(dataset, class_names=names)
    table = np.asarray(numbers, np.int32)
    train, test = (_relabel(split, table) for split in (dataset.train, dataset.test))
    return Dataset(dataset.name, train, test, names)


def _relabel(split: Split | EncodedSplit, numbers: np.ndarray) -> Split | EncodedSplit:
    if isinstance(split, EncodedSplit):
        return dataclasses.replace(split, source=_Relabelled(split.source, numbers))
    source = split.source and _Relabelled(split.source, numbers)
    return dataclasses.replace(split, labels=numbers[split.labels], source=source)


@dataclasses.dataclass(frozen=True, eq=False)
class _Relabelled:
    """`source` with label k replaced by `numbers[k]`, int32."""

    source: Source
    numbers: np.ndarray

    @property
    def channels(self) -> int:
        return self.source.channels

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> list[tuple[Encoded, int]]:
        records = self.source.read(indices)
        return [(encoded, int(self.numbers[label])) for encoded, label in records]

    def describe(self, index: int) -> str:
        return self.source.describe(index)

    def identity(self) -> Mapping[str, Any]:
        return {**self.source.identity(), "numbers": self.numbers.tolist()}

    def fingerprint(self, class_names: Sequence[str]) -> str:
        return self.source.fingerprint([class_names[i] for i in self.numbers])
