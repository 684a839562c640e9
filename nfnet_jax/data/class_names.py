"""Names of classes: compared, read from files, and data sets renumbered by them."""

import collections
import dataclasses
import importlib.util
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_jax.data.dataset import Dataset, Encoded, EncodedSplit, Source, Split
from nfnet_jax.utils.errors import UserError, nearest

_IMAGENET = "datasets/imagenet2012/labels.txt"
_MOST_NAMED = 3


def match_classes(
    found: Sequence[str], known: Sequence[str], *, whole: bool = True
) -> list[int]:
    """Place of each `found` class among the `known` ones.

    Names are equal in every Unicode normalization. Without `whole`, known classes may
    be missing.

    Raises:
      ValueError: the names differ; the message lists the difference.
    """
    found, known = composed(found), composed(known)
    if found == known:
        return list(range(len(known)))
    counts = collections.Counter(found) | collections.Counter(known)
    for name, count in counts.items():
        if count > 1:
            raise ValueError(f"{name!r} is the name of several classes")
    places = {name: place for place, name in enumerate(known)}
    new = [name for name in found if name not in places]
    missing = missing_classes(found, known)
    if new or (whole and missing):
        differences = [
            f"{listed(names)} {'is' if len(names) == 1 else 'are'} {what}"
            for names, what in ((new, "new"), (missing, "missing"))
            if names
        ]
        hint = nearest(new[0], missing) if new else ""
        raise ValueError(f"{', '.join(differences)}{hint}")
    return [places[name] for name in found]


def missing_classes(found: Sequence[str], known: Sequence[str]) -> list[str]:
    """The `known` classes that were not `found`."""
    present = set(composed(found))
    return [name for name in composed(known) if name not in present]


def listed(names: Sequence[str]) -> str:
    """Lists names in a message: 'a', 'b', 'c' and 2 more."""
    more = f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else ""
    return ", ".join(map(repr, names[:_MOST_NAMED])) + more


def composed(names: Sequence[str]) -> list[str]:
    """Names in Unicode's composed form (NFC), in which they are compared."""
    return [unicodedata.normalize("NFC", str(name)) for name in names]


def read_class_names(path: str) -> tuple[str, ...]:
    """Reads a text file of one class name a line, in the order of the logits.

    Raises:
      UserError: no such file, not text, or a line without a name.
    """
    try:
        # Some editors begin a file with a byte order mark.
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        folder = os.path.dirname(path) or "."
        beside = os.listdir(folder) if os.path.isdir(folder) else []
        hint = nearest(os.path.basename(path), beside)
        raise UserError(f"cannot read {path}: {error.strerror}{hint}") from error
    except ValueError as error:
        raise UserError(f"{path} is not text in UTF-8: {error}") from error
    names = tuple(line.strip() for line in (lines if lines[-1] else lines[:-1]))
    if not names:
        raise UserError(f"{path} is empty, expected one name a line")
    if "" in names:
        number = names.index("") + 1
        raise UserError(f"{path}, line {number} is empty, expected one name a line")
    return names


def imagenet_class_names() -> tuple[str, ...]:
    """Names such as "class 281 (n02123045)" for `imagenet_synsets`."""
    return tuple(f"class {i} ({name})" for i, name in enumerate(imagenet_synsets()))


def imagenet_synsets() -> tuple[str, ...]:
    """WordNet synsets of ImageNet's 1000 classes in the order of the logits.

    They are read from a file of TFDS, which need not be imported for it.
    """
    package = importlib.util.find_spec("tensorflow_datasets")
    assert package and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / _IMAGENET
    return tuple(path.read_text(encoding="utf-8").split())


def relabel(dataset: Dataset, class_names: Sequence[str]) -> Dataset:
    """The same examples in the same order, labelled by their place in `class_names`;
    raises ValueError for a class that is not among them."""
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
    """Source with label k of `source` replaced by `numbers[k]`, int32."""

    source: Source
    numbers: np.ndarray

    @property
    def channels(self) -> int:
        return self.source.channels

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        records = self.source.read(rows)
        return [(encoded, int(self.numbers[label])) for encoded, label in records]

    def describe(self, row: int) -> str:
        return self.source.describe(row)

    def identity(self) -> Mapping[str, Any]:
        return {**self.source.identity(), "numbers": self.numbers.tolist()}

    def fingerprint(self, class_names: Sequence[str]) -> str:
        return self.source.fingerprint([class_names[i] for i in self.numbers])
