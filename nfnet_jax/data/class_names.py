"""What the classes of a network are called."""

import collections
import importlib.util
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from nfnet_jax.utils.errors import UserError, nearest

_IMAGENET = "datasets/imagenet2012/labels.txt"
_MOST_NAMED = 3


def match_classes(
    found: Sequence[str], known: Sequence[str], *, whole: bool = True
) -> list[int]:
    """The place of each class that was `found` among those that are `known`.

    Names are the same in every Unicode normalization. Without `whole`, some of the
    known ones may be missing.

    Raises:
      ValueError: the names differ; the message says in which.
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
        told = [
            f"{listed(names)} {'is' if len(names) == 1 else 'are'} {what}"
            for names, what in ((new, "new"), (missing, "missing"))
            if names
        ]
        hint = nearest(new[0], missing) if new else ""
        raise ValueError(f"{', '.join(told)}{hint}")
    return [places[name] for name in found]


def missing_classes(found: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those of the `known` classes that were not `found`."""
    present = set(composed(found))
    return [name for name in composed(known) if name not in present]


def listed(names: Sequence[str]) -> str:
    """ "'a', 'b', 'c' and 2 more"."""
    more = f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else ""
    return ", ".join(map(repr, names[:_MOST_NAMED])) + more


def composed(names: Sequence[str]) -> list[str]:
    """The names in Unicode's composed form (NFC), in which they are compared."""
    return [unicodedata.normalize("NFC", str(name)) for name in names]


def read_class_names(path: str) -> tuple[str, ...]:
    """The lines of a text file, one name for each class in the order of the logits.

    Raises:
      UserError: no such file, not text, or a line without a name.
    """
    try:
        # Some editors begin a file with a mark of its byte order.
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


def imagenet_class_names() -> tuple[str, ...] | None:
    """ "class 281 (n02123045)" for each of `imagenet_synsets`, None without them."""
    synsets = imagenet_synsets()
    return synsets and tuple(f"class {i} ({name})" for i, name in enumerate(synsets))


def imagenet_synsets() -> tuple[str, ...] | None:
    """The WordNet synsets of ImageNet's 1000 classes, in the order of the logits.

    From the labels that TFDS brings; None where it does not.
    """
    package = importlib.util.find_spec("tensorflow_datasets")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / _IMAGENET
    if not path.is_file():
        return None
    return tuple(path.read_text(encoding="utf-8").split())
