"""Finding image files below directories, and counting the files passed over."""

import collections
import contextlib
import dataclasses
import functools
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from nfnet_jax.utils.errors import nearest

EXTENSIONS = (
    ".apng .avif .avifs .bmp .gif .icb .j2c .j2k .jfi .jfif .jif .jp2 .jpc .jpe .jpeg "
    ".jpf .jpg .jpx .mpo .pbm .pgm .pjp .pjpeg .png .pnm .ppm .tga .tif .tiff .vda "
    ".vst .webp"
).split()
"""Endings of image files, in lower case."""

_KINDS_LISTED = 8
_logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Listing:
    """Images below a directory, and everything that was passed over.

    `images`: sorted paths. `passed_over`: count of other files by kind. `unreadable`: a
    line for each directory that cannot be listed.
    """

    images: list[str] = dataclasses.field(default_factory=list)
    passed_over: Counter[str] = dataclasses.field(default_factory=Counter)
    unreadable: list[str] = dataclasses.field(default_factory=list)

    def add(self, entry: os.DirEntry[str]) -> None:
        """Adds an entry that is no directory to the images or to `passed_over`."""
        extension = os.path.splitext(entry.name)[1].lower()
        if _is_special(entry):
            self.passed_over["pipe or device"] += 1
        elif extension in EXTENSIONS:
            self.images.append(entry.path)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            self.passed_over["link to nowhere"] += 1
        else:
            self.passed_over[extension or "without extension"] += 1


def images_below(directory: str | os.PathLike) -> Listing:
    """Lists files with one of `EXTENSIONS` at any depth, following links.

    Hidden files and directories are passed over, and so are links to a directory above
    or to one already listed: no link makes a file count twice.
    """
    listing = Listing()
    seen = _directories_above(directory)
    directories, links = [os.fspath(directory)], collections.deque[str]()
    # Links come last, so that a file is listed under its own path if it has one.
    while directories or links:
        folder = directories.pop() if directories else links.popleft()
        try:
            if (identity := _identity(folder)) in seen:
                listing.passed_over["link to a directory listed already"] += 1
                continue
            entries = visible_entries(folder, listing)
        except OSError as error:
            listing.unreadable.append(f"cannot read {folder}: {error.strerror}")
            continue
        seen.add(identity)
        for entry in entries:
            if not is_directory(entry):
                listing.add(entry)
            elif entry.is_symlink():
                links.append(entry.path)
            else:
                directories.append(entry.path)
    listing.images.sort()
    return listing


def list_images(
    paths: Iterable[str | os.PathLike],
) -> tuple[list[str], list[str]]:
    """Expands directories among `paths` to the images below them.

    Returns:
      Paths of files, and a line for each of `paths` that is absent or not all readable.
    """
    found: list[str] = []
    wrong: list[str] = []
    passed_over: Counter[str] = Counter()
    for path in (os.fspath(path) for path in paths):
        if os.path.isdir(path):
            below = images_below(path)
            found += below.images
            wrong += below.unreadable
            passed_over += below.passed_over
            if not below.images and not below.unreadable:
                wrong.append(
                    f"{path} holds no images, expected files such as .jpg or .png in"
                    f" it{found_instead(below.passed_over)}"
                )
        elif os.path.exists(path):
            found.append(path)
        else:
            wrong.append(_absent(path))
    if passed_over:
        say_once(f"passed over {describe(passed_over)}")
    return found, wrong


def _absent(path: str) -> str:
    folder, name = os.path.split(path)
    folder = folder or "."
    beside: list[str] = []
    with contextlib.suppress(OSError):
        beside = os.listdir(folder)
    where = "" if os.path.isdir(folder) else f" (there is no directory {folder!r})"
    return f"{path!r} does not exist{where}, expected an image{nearest(name, beside)}"


def visible_entries(
    folder: str | os.PathLike, listing: Listing
) -> list[os.DirEntry[str]]:
    """Sorted entries of a directory; `listing` counts the hidden ones."""
    with os.scandir(os.fspath(folder)) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    if hidden := len(entries) - len(visible):
        listing.passed_over["hidden"] += hidden
    return visible


def is_directory(entry: os.DirEntry[str]) -> bool:
    """True for a directory or a link to one."""
    try:
        return entry.is_dir()
    # For example a link to itself.
    except OSError:
        return False


def describe(passed_over: Counter[str]) -> str:
    """Counts in words: "10 .heic, 1 hidden"."""
    listed = passed_over.most_common(_KINDS_LISTED)
    words = [f"{count:,} {kind}" for kind, count in listed]
    if more := passed_over.total() - sum(count for _, count in listed):
        words.append(f"{more:,} more")
    return ", ".join(words)


def found_instead(passed_over: Counter[str]) -> str:
    """End of an error message: the content of a directory without images."""
    return f"; found {describe(passed_over)}" if passed_over else ""


@functools.cache
def say_once(line: str) -> None:
    """Warns once a process, however many data sets share the folder."""
    _logger.warning("%s", line)


def _directories_above(directory: str | os.PathLike) -> set[tuple[int, int]]:
    """Identities of all parents of a path, by its name and by its real place."""
    absolute, real = os.path.abspath(directory), os.path.realpath(directory)
    found = set()
    for parent in {*Path(absolute).parents, *Path(real).parents}:
        # Links to a parent that cannot be read are not followed either.
        with contextlib.suppress(OSError):
            found.add(_identity(parent))
    return found


def _identity(directory: str | os.PathLike) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino


def _is_special(entry: os.DirEntry[str]) -> bool:
    """True for a pipe, a socket or a device."""
    try:
        return not (entry.is_file() or stat.S_ISREG(entry.stat().st_mode))
    # Links to nowhere are named when they are read.
    except OSError:
        return False
