"""Folders of images: a directory per class, split by directories or by hashes.

PATH/train/CLASS/... with PATH/test or PATH/val beside it, under any of the names of
`_MEANINGS` in any case, or PATH/CLASS/... alone: then 20 % of every class is the test
split, chosen by a hash of each file's path below PATH, so that it is the same on every
machine and new images do not reshuffle the others.
"""

import contextlib
import hashlib
import itertools
import os
import re
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nfnet_jax.data.dataset import Dataset, EncodedSplit
from nfnet_jax.data.images.listing import (
    EXTENSIONS,
    Listing,
    describe,
    found_instead,
    images_below,
    is_directory,
    say_once,
    visible_entries,
)
from nfnet_jax.data.sources.file_source import FileSource, normalized_name
from nfnet_jax.data.sources.splits import select
from nfnet_jax.utils.errors import UserError, nearest
from nfnet_jax.utils.files import local_path

TEST_FRACTION = 0.2
_MEANINGS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
# trainset, train_images, eval-2, ...
_LOOK = re.compile(
    "(?:^|[^a-z])(train|training|test|testing|val|valid|validation|eval|evaluation|dev)"
    "(?:set|split|data|images?)?(?:$|[^a-z])"
)
# "test" is the default of data.eval_split.
_STAND_INS = {"test": ("test", "validation")}
# Comparing this many files takes a second on a local disk.
_MOST_COMPARED = 100_000


_Classes = dict[str, list[Path]]
"""Files of one split by class; paths are below the set's folder."""


def open_folder(
    path: str, train_split: str, eval_split: str, image_size: int | None
) -> Dataset:
    """Lists the images below the folder `path`; both splits stay encoded.

    Images of any mode and size become uint8 RGB [N, image_size, image_size, 3]. Classes
    are the names of the directories in Unicode's composed form, in alphabetical order;
    files passed over are counted on stderr. The images of a split are in the order of a
    hash of their path, so that a slice is a sample of all classes. In a folder without
    `test`, the split 'test' is its `validation`.

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
    found = Listing()
    splits = _list_splits(root, found)
    found.passed_over["image in no class directory"] += len(found.images)
    if passed_over := +found.passed_over:
        say_once(f"folder:{path}: passed over {describe(passed_over)}")
    sizes = {name: sum(map(len, classes.values())) for name, classes in splits.items()}
    selections = [
        select(_directory_names(spec, splits), sizes, key, f"folder:{path}")
        for key, spec in (("train_split", train_split), ("eval_split", eval_split))
    ]
    used = dict.fromkeys(name for parts in selections for name, _ in parts)
    class_names = _common_classes(root, {name: splits[name] for name in used})
    sources = [_make_source(root, splits, parts, class_names) for parts in selections]
    _warn_of_shared_files(path, *sources)
    train, test = (
        EncodedSplit(
            f"{root.absolute().name} {spec}",
            source,
            (image_size, image_size, 3),
            resize=True,
        )
        for spec, source in zip((train_split, eval_split), sources, strict=True)
    )
    return Dataset(f"folder:{path}", train, test, class_names)


# --- Splits and classes of a folder --------------------------------------------------


def _check_folder(path: str, root: Path) -> None:
    try:
        if stat.S_ISDIR(root.stat().st_mode):
            return
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UserError(
            f"data.name is 'folder:{path}', which cannot be read: {error.strerror}"
        ) from error
    # Name the first absent component: it is the one to correct.
    missing = root
    while missing.parent != missing and not missing.parent.is_dir():
        missing = missing.parent
    if missing.exists():
        raise UserError(
            f"data.name is 'folder:{path}': {missing} is a file, expected a directory"
        )
    beside = [entry.name for entry in _directories(missing.parent, Listing())]
    hint = nearest(missing.name, beside)
    raise UserError(
        f"data.name is 'folder:{path}': no directory {missing.name!r} in"
        f" {missing.parent.absolute()}{hint}"
    )


def _list_splits(root: Path, found: Listing) -> dict[str, _Classes]:
    """Splits of a folder of either form, by directory.

    `found` collects files passed over, and images that are in no class directory.
    """
    directories = _directories(root, found)
    # A directory of images called "train" is a class.
    splits = [d for d in directories if _meaning(d.name) and _directories(d, Listing())]
    if not splits:
        _check_look(root, directories)
        return _split_by_hash(root, _list_classes(root, directories, root, found))
    meanings = [_meaning(d.name) for d in splits]
    for one, other in itertools.combinations(splits, 2):
        if _meaning(one.name) == _meaning(other.name):
            raise UserError(
                f"{root} has {one.name!r} and {other.name!r}, which both mean the"
                f" {_meaning(one.name)} split, expected one of them"
            )
    if "train" not in meanings or not splits[1:]:
        lacking = "val, validation or test" if "train" in meanings else "train"
        raise UserError(
            f"{root} has {', '.join(d.name for d in splits)} but no {lacking} with"
            " class directories: expected both, or class directories alone"
        )
    for other in directories:
        if other not in splits:
            found.passed_over[f"directory {other.name!r}"] += 1
    return {
        d.name: _list_classes(Path(d), _directories(d, found), root, found)
        for d in splits
    }


def _meaning(name: str) -> str | None:
    """Split meant by the name of a directory or by a word of data.train_split."""
    return _MEANINGS.get(name.lower())


def _check_look(root: Path, directories: Sequence[os.DirEntry[str]]) -> None:
    """Refuses training_set/CLASS/... beside test_set/CLASS/..., else two classes, and
    CLASS/train/... beside CLASS/test/..., whose images would be mixed."""
    looks = {}
    for d in directories:
        inside = [inner.name for inner in _directories(d, Listing())]
        if len({_meaning(name) for name in inside} - {None}) > 1:
            raise UserError(
                f"{root} has splits in its classes ({d.name}/{inside[0]}): expected"
                f" {inside[0]}/{d.name}, classes in splits"
            )
        if inside and (found := _LOOK.search(d.name.lower())):
            looks[d.name] = found[1]
    if 0 < sum(look.startswith("train") for look in looks.values()) < len(looks):
        raise UserError(
            f"{root} has {', '.join(looks)}, which look like splits: expected them to"
            " be called train and test or val, or a directory of images for every class"
        )
    if directories and all(_meaning(d.name) for d in directories):
        names = ", ".join(d.name for d in directories)
        say_once(f"{root}: {names} hold no class directories and are taken for classes")


def _list_classes(
    folder: Path, directories: Sequence[os.DirEntry[str]], root: Path, found: Listing
) -> _Classes:
    """Files of each of the directories in `folder` by class, below `root`."""
    if len(directories) < 2:
        only = f"only {directories[0].name!r}" if directories else "none"
        raise UserError(
            f"{folder} should hold a directory of images for every class, at least two;"
            f" found {only}"
        )
    classes: _Classes = {}
    names: dict[str, str] = {}
    for directory in directories:
        name = _class_name(directory.name)
        if name in classes:
            raise UserError(
                f"{folder} has {names[name]!a} and {directory.name!a}, two spellings of"
                f" the same name {name!r}, expected one directory for a class"
            )
        names[name] = directory.name
        below = images_below(directory)
        if below.unreadable:
            raise UserError(below.unreadable[0])
        if not below.images:
            raise UserError(
                f"class directory {directory.path} holds no images (files ending in"
                f" {', '.join(EXTENSIONS)}){found_instead(below.passed_over)}"
            )
        found.passed_over += below.passed_over
        classes[name] = [Path(path).relative_to(root) for path in below.images]
    return dict(sorted(classes.items()))


def _class_name(directory: str) -> str:
    """Class of a directory: its name as composed text."""
    # Bytes that are no text could be neither printed nor stored.
    text = directory.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return unicodedata.normalize("NFC", text)


def _directories(folder: str | os.PathLike, found: Listing) -> list[os.DirEntry[str]]:
    """Directories in a directory; `found` collects all other entries."""
    try:
        entries = visible_entries(folder, found)
    except OSError as error:
        where = os.fspath(folder)
        raise UserError(f"cannot read {where}: {error.strerror}") from error
    directories = []
    for entry in entries:
        if is_directory(entry):
            directories.append(entry)
        else:
            found.add(entry)
    return directories


def _split_by_hash(root: Path, classes: _Classes) -> dict[str, _Classes]:
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
    return {"train": train, "test": test}


def _hash(path: Path) -> bytes:
    name = normalized_name(path).encode(errors="surrogateescape")
    return hashlib.sha256(name).digest()


def _directory_names(spec: str, splits: Mapping[str, _Classes]) -> str:
    """Replaces split names of `spec`, in any spelling, by the names of directories."""
    by_meaning = {_meaning(name): name for name in splits}
    parts = []
    for part in spec.split("+"):
        name, bracket, rest = part.strip().partition("[")
        meaning = _meaning(name.strip())
        wanted = _STAND_INS.get(meaning or "", (meaning,))
        present = [by_meaning[m] for m in wanted if m in by_meaning]
        parts.append((present[0] if present else name) + bracket + rest)
    return "+".join(parts)


def _common_classes(root: Path, splits: Mapping[str, _Classes]) -> tuple[str, ...]:
    for one, other in itertools.permutations(splits, 2):
        if lone := sorted(splits[one].keys() - splits[other].keys()):
            others = f" and {len(lone) - 1} more" if lone[1:] else ""
            raise UserError(
                f"{root}: class {lone[0]!r}{others} is in {one!r} but not in"
                f" {other!r}{nearest(lone[0], splits[other])}"
            )
    return tuple(next(iter(splits.values())))


def _make_source(
    root: Path,
    splits: Mapping[str, _Classes],
    parts: Sequence[tuple[str, np.ndarray]],
    class_names: tuple[str, ...],
) -> FileSource:
    """Source of some rows of the splits, each in the order of a hash of the path."""
    paths, labels = [], []
    for name, rows in parts:
        examples = [
            (path, label)
            for label, class_name in enumerate(class_names)
            for path in splits[name][class_name]
        ]
        examples.sort(key=lambda example: _hash(example[0]))
        paths += [examples[row][0] for row in rows]
        labels += [examples[row][1] for row in rows]
    return FileSource(root, paths, np.asarray(labels, np.int32))


def _warn_of_shared_files(path: str, train: FileSource, test: FileSource) -> None:
    """Warns of test files that are trained on under another name."""
    if len(train) + len(test) > _MOST_COMPARED:
        return
    names, files = set(train.paths), _files(train, train.paths)
    others = [name for name in test.paths if name not in names]
    if shared := [name for file, name in _files(test, others).items() if file in files]:
        say_once(
            f"folder:{path}: {len(shared):,} of {len(test):,} test images, such as"
            f" {shared[0]}, are trained on under another name"
        )


def _files(source: FileSource, paths: Sequence[Path]) -> dict[tuple[int, int], Path]:
    """One name of every file, by device and inode."""
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = (source.root / path).stat()
            found[status.st_dev, status.st_ino] = path
    return found
