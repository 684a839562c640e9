"""Folders of images: a directory per class, split by directories or by hashes.

PATH/train/CLASS/... with PATH/test, PATH/validation or PATH/val beside it, or
PATH/CLASS/... alone: then 20 % of every class is the test split, chosen by a hash of
each file's path below PATH, so that it is the same on every machine and new images do
not reshuffle the others.
"""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_jax.data.dataset import Dataset
from nfnet_jax.data.images import EXTENSIONS, images_below
from nfnet_jax.data.source import BadImage, Encoded, EncodedSplit
from nfnet_jax.data.splits import select
from nfnet_jax.errors import UserError, nearest
from nfnet_jax.paths import local_path

TEST_FRACTION = 0.2
# "test" is what data.eval_split says unless it is set.
_STAND_INS = {
    "test": ("test", "validation", "val"),
    "validation": ("validation", "val"),
    "val": ("val", "validation"),
}
_SPLIT_NAMES = ("train", *_STAND_INS)


@dataclasses.dataclass(frozen=True)
class _Listing:
    """The files of one split, by class; paths are below the set's folder."""

    name: str
    classes: dict[str, list[Path]]

    def __len__(self) -> int:
        return sum(map(len, self.classes.values()))

    def examples(self, class_names: Sequence[str]) -> list[tuple[Path, int]]:
        """Paths and labels, in the order of a hash of the path."""
        labelled = [
            (path, label)
            for label, name in enumerate(class_names)
            for path in self.classes[name]
        ]
        return sorted(labelled, key=lambda example: _hash(example[0]))


def open_folder(
    path: str, train_split: str, eval_split: str, image_size: int | None
) -> Dataset:
    """Lists the images below the folder `path`; both splits stay encoded.

    Any mode and size: they become RGB, uint8 [N, image_size, image_size, 3]. Classes
    are the names of the directories, in alphabetical order; hidden files are passed
    over. Within a split, images are in the order of a hash of their path, so that a
    slice of it is a sample of all classes. Where a folder has no `test`, the split
    'test' is its `validation` or `val`.

    Raises:
      UserError: no such folder or split, no `image_size`, no classes, a class of one
        split only, or too few images.
    """
    if image_size is None:
        raise UserError(
            f"data.image_size is unset, folder:{path} needs it (such as 224): images"
            " of a folder are resized to one size"
        )
    root = local_path(path, "data.name, folder:")
    _check_folder(path, root)
    splits = _list_splits(root)
    sizes = {name: len(listing) for name, listing in splits.items()}
    selections = [
        select(_with_stand_ins(spec, splits), sizes, key, f"folder:{path}")
        for key, spec in (("train_split", train_split), ("eval_split", eval_split))
    ]
    used = dict.fromkeys(name for parts in selections for name, _ in parts)
    class_names = _common_classes(root, [splits[name] for name in used])
    train, test = (
        EncodedSplit(
            f"{root.absolute().name} {spec}",
            _make_source(root, splits, parts, class_names),
            (image_size, image_size, 3),
            resize=True,
        )
        for spec, parts in zip((train_split, eval_split), selections, strict=True)
    )
    return Dataset(f"folder:{path}", train, test, class_names)


# --- What the folder holds ----------------------------------------------------------


def _check_folder(path: str, root: Path) -> None:
    if root.is_dir():
        return
    # The first component that is absent is the one to correct.
    missing = root
    while missing.parent != missing and not missing.parent.is_dir():
        missing = missing.parent
    if missing.exists():
        raise UserError(
            f"data.name is 'folder:{path}': {missing} is a file, expected a directory"
        )
    beside = {entry.name: entry for entry in _directories(missing.parent)}
    hint = nearest(missing.name, beside)
    raise UserError(
        f"data.name is 'folder:{path}': no directory {missing.name!r} in"
        f" {missing.parent.absolute()}{hint}"
    )


def _list_splits(root: Path) -> dict[str, _Listing]:
    """All splits of a folder, whichever of the two forms it has."""
    # A directory of images called "train" is a class.
    named = [
        name
        for name in _SPLIT_NAMES
        if (root / name).is_dir() and _directories(root / name)
    ]
    if not named:
        return _split_by_hash(root, _list_classes(root, root))
    if "train" not in named or not named[1:]:
        lacking = "val, validation or test" if "train" in named else "train"
        raise UserError(
            f"{root} has {', '.join(named)} but no {lacking} with class directories:"
            " expected both, or class directories alone"
        )
    return {name: _Listing(name, _list_classes(root, root / name)) for name in named}


def _list_classes(root: Path, folder: Path) -> dict[str, list[Path]]:
    directories = _directories(folder)
    if len(directories) < 2:
        found = f"only {directories[0].name!r}" if directories else "none"
        raise UserError(
            f"{folder} should hold a directory of images for every class, at least two;"
            f" found {found}"
        )
    classes = {
        entry.name: [Path(path).relative_to(root) for path in images_below(entry)]
        for entry in directories
    }
    for name, images in classes.items():
        if not images:
            raise UserError(
                f"class directory {folder / name} holds no images (files ending in"
                f" {', '.join(EXTENSIONS)})"
            )
    return classes


def _directories(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
        return [e for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error


def _split_by_hash(root: Path, classes: dict[str, list[Path]]) -> dict[str, _Listing]:
    train, test = {}, {}
    for name, images in classes.items():
        if len(images) < 2:
            raise UserError(
                f"class directory {root / name} holds one image, expected at least two:"
                " one to train on, one to test on"
            )
        ordered = sorted(images, key=_hash)
        held_out = max(1, round(TEST_FRACTION * len(images)))
        test[name], train[name] = sorted(ordered[:held_out]), sorted(ordered[held_out:])
    return {"train": _Listing("train", train), "test": _Listing("test", test)}


def _hash(path: Path) -> bytes:
    return hashlib.sha256(path.as_posix().encode(errors="surrogateescape")).digest()


def _with_stand_ins(spec: str, splits: Mapping[str, _Listing]) -> str:
    """The split names of `spec` replaced by those that stand in for them."""
    parts = []
    for part in spec.split("+"):
        name, bracket, rest = part.strip().partition("[")
        present = [n for n in _STAND_INS.get(name, ()) if n in splits]
        parts.append((present[0] if present else name) + bracket + rest)
    return "+".join(parts)


def _common_classes(root: Path, listings: Sequence[_Listing]) -> tuple[str, ...]:
    for one, other in itertools.permutations(listings, 2):
        if lone := sorted(one.classes.keys() - other.classes.keys()):
            others = f" and {len(lone) - 1} more" if lone[1:] else ""
            raise UserError(
                f"{root}: class {lone[0]!r}{others} is in {one.name!r} but not in"
                f" {other.name!r}{nearest(lone[0], other.classes)}"
            )
    return tuple(listings[0].classes)


# --- Reading a split ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """Files of one split: `paths` below `root`, and their labels int32 [N]."""

    root: Path
    paths: Sequence[Path]
    labels: np.ndarray
    channels: int = 3

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> list[tuple[Encoded, int]]:
        return [(self._content(i), int(self.labels[i])) for i in indices]

    def _content(self, index: int) -> Encoded:
        try:
            return (self.root / self.paths[index]).read_bytes()
        except OSError as error:
            return BadImage(f"cannot be read: {error.strerror}")

    def describe(self, index: int) -> str:
        return os.fspath(self.root / self.paths[index])

    def identity(self) -> Mapping[str, Any]:
        files = [[os.fspath(p), *_size_and_time(self.root / p)] for p in self.paths]
        return {
            "folder": os.fspath(self.root.absolute()),
            "files": files,
            "labels": self.labels.tolist(),
        }


def _make_source(
    root: Path,
    splits: Mapping[str, _Listing],
    parts: Sequence[tuple[str, np.ndarray]],
    class_names: tuple[str, ...],
) -> FolderSource:
    paths, labels = [], []
    for name, indices in parts:
        examples = splits[name].examples(class_names)
        paths += [examples[i][0] for i in indices]
        labels += [examples[i][1] for i in indices]
    return FolderSource(root, paths, np.asarray(labels, np.int32))


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    # A link to nowhere, for one: its turn to be named comes with decoding.
    except OSError:
        return -1, -1
    return facts.st_size, facts.st_mtime_ns
