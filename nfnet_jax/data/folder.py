"""Folders of images: a directory per class, split by directories or by hashes.

PATH/train/CLASS/... with PATH/test, PATH/validation or PATH/val beside it, or
PATH/CLASS/... alone: then 20 % of every class is the test split, chosen by a hash of
each file's path below PATH, so that it is the same on every machine and new images do
not reshuffle the others.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nfnet_jax.data.dataset import Dataset, Split
from nfnet_jax.data.decoded_cache import DecodedCache
from nfnet_jax.data.decoding import check_memory, map_blocks
from nfnet_jax.data.images import open_image
from nfnet_jax.data.preprocess import crop_to_size
from nfnet_jax.errors import UserError, nearest

EXTENSIONS = (
    ".bmp .gif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()
)
"""Of the files that are taken for images, in either case; others are passed over."""
TEST_FRACTION = 0.2
# "test" is what data.eval_split says unless it is set.
_STAND_INS = {
    "test": ("test", "validation", "val"),
    "validation": ("validation", "val"),
    "val": ("val", "validation"),
}
_SPLIT_NAMES = ("train", *_STAND_INS)
_IMAGES_PER_READ = 32
# Part of the cache key: raise it when decoding changes what the arrays hold.
_CACHE_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class _Listing:
    """The files of one split, by class; paths are below the set's folder."""

    name: str
    classes: dict[str, list[Path]]

    def __len__(self) -> int:
        return sum(map(len, self.classes.values()))


def load_folder(
    path: str,
    train_split: str,
    eval_split: str,
    image_size: int | None,
    crop: str = "training",
) -> Dataset:
    """Loads the images below the folder `path` into memory.

    Any mode and size: they become RGB, uint8 [N, image_size, image_size, 3], the
    shorter side resized and the centre square cropped, those of the evaluation split by
    the rule `crop` of `preprocess.CROPS`. Classes are the names of the
    directories, in alphabetical order; hidden files are passed over. Where a folder
    has no `test`, the split 'test' is its `validation` or `val`.

    Raises:
      UserError: no such folder or split, no `image_size`, no classes, a class of one
        split only, too few images, a broken image, or more than memory holds.
    """
    if image_size is None:
        raise UserError(
            f"data.image_size is unset, folder:{path} needs it (such as 224): images"
            " of a folder are resized to one size"
        )
    root = Path(path).expanduser()
    _check_folder(path, root)
    splits = _list_splits(root)
    listings = [
        _choose(splits, key, name, path)
        for key, name in (("train_split", train_split), ("eval_split", eval_split))
    ]
    class_names = _common_classes(root, listings)
    readers = [
        _Reader(root, listing, image_size, rule)
        for listing, rule in zip(listings, ("training", crop), strict=True)
    ]
    cached = [reader.cache.read(len(reader.listing)) for reader in readers]
    if any(split is None for split in cached):
        needed = sum(len(listing) for listing in listings) * image_size**2 * 3
        check_memory(f"folder:{path}", needed, "set a smaller data.image_size")
    train, test = (
        reader.decode_and_cache() if split is None else split
        for split, reader in zip(cached, readers, strict=True)
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
    classes = {entry.name: _images_below(root, entry) for entry in directories}
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


def _images_below(root: Path, folder: Path) -> list[Path]:
    """Image files at any depth, relative to `root`, in the order of their names."""

    def fail(error: OSError):
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error

    found = []
    for place, directories, files in os.walk(folder, onerror=fail):
        directories[:] = [name for name in directories if not name.startswith(".")]
        found += [
            (Path(place) / name).relative_to(root)
            for name in files
            if name.lower().endswith(tuple(EXTENSIONS)) and not name.startswith(".")
        ]
    return sorted(found)


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


def _choose(splits: dict[str, _Listing], key: str, name: str, path: str) -> _Listing:
    for candidate in _STAND_INS.get(name, (name,)):
        if candidate in splits:
            return splits[candidate]
    raise UserError(
        f"data.{key} is {name!r}, folder:{path} has {', '.join(splits)}"
        f"{nearest(name, splits)}"
    )


def _common_classes(root: Path, listings: Sequence[_Listing]) -> tuple[str, ...]:
    first, second = listings
    for one, other in ((first, second), (second, first)):
        if lone := sorted(one.classes.keys() - other.classes.keys()):
            others = f" and {len(lone) - 1} more" if lone[1:] else ""
            raise UserError(
                f"{root}: class {lone[0]!r}{others} is in {one.name!r} but not in"
                f" {other.name!r}{nearest(lone[0], other.classes)}"
            )
    return tuple(first.classes)


# --- Reading a split ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Decodes one split, or takes its arrays from the cache."""

    root: Path
    listing: _Listing
    image_size: int
    crop: str

    @property
    def cache(self) -> DecodedCache:
        files = [
            [os.fspath(image), *_size_and_time(self.root / image)]
            for images in self.listing.classes.values()
            for image in images
        ]
        identity = {
            "format": _CACHE_FORMAT,
            "folder": os.fspath(self.root.absolute()),
            "classes": {name: len(i) for name, i in self.listing.classes.items()},
            "files": files,
            "image_size": self.image_size,
            "crop": self.crop,
        }
        readable = f"{self.root.absolute().name}-{self.listing.name}"
        return DecodedCache(f"folder:{self.root}", readable, identity)

    def decode_and_cache(self) -> Split:
        """Decodes every image, and stores the arrays for the next time."""
        paths = [path for images in self.listing.classes.values() for path in images]
        counts = [len(images) for images in self.listing.classes.values()]
        shape = (len(paths), self.image_size, self.image_size, 3)
        pixels = np.empty(shape, np.uint8)

        def fill(start: int) -> int:
            indices = range(start, min(start + _IMAGES_PER_READ, len(paths)))
            for index in indices:
                image = open_image(self.root / paths[index])
                pixels[index] = crop_to_size(image, self.crop, self.image_size)
            return len(indices)

        description = f"decoding {self.root.name} {self.listing.name}"
        map_blocks(fill, len(paths), _IMAGES_PER_READ, description)
        labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        split = Split(pixels, labels)
        self.cache.write(split)
        return split


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    # A link to nowhere, for one.
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror}") from error
    return facts.st_size, facts.st_mtime_ns
