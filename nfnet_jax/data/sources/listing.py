"""Which files below a directory are images, and how many others are passed over."""

import collections
import contextlib
import dataclasses
import functools
import logging
import os
import stat
from collections import Counter
from pathlib import Path

EXTENSIONS = (
    ".apng .avif .avifs .bmp .gif .icb .j2c .j2k .jfi .jfif .jif .jp2 .jpc .jpe .jpeg "
    ".jpf .jpg .jpx .mpo .pbm .pgm .pjp .pjpeg .png .pnm .ppm .tga .tif .tiff .vda "
    ".vst .webp"
).split()
"""Of the files that are taken for images, in lower case."""

_KINDS_LISTED = 8
_logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Listing:
    """The images below a directory.

    `images`: their paths, sorted. `passed_over`: of what kind the others are, and how
    many. `unreadable`: a line for each directory that cannot be listed.
    """

    images: list[str] = dataclasses.field(default_factory=list)
    passed_over: Counter[str] = dataclasses.field(default_factory=Counter)
    unreadable: list[str] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def add(self, entry: os.DirEntry[str]) -> None:
        """A file that is no directory."""
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
    """The files at any depth that have one of `EXTENSIONS`, through links as well.

    Hidden files and directories are passed over, and so are links to a directory above
    and to one that is listed already: no link makes a file count twice.
    """
    listing = Listing()
    seen = _directories_above(directory)
    directories, links = [os.fspath(directory)], collections.deque[str]()
    # Links come last, so that a file has its own path where it has one.
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


def visible_entries(
    folder: str | os.PathLike, listing: Listing
) -> list[os.DirEntry[str]]:
    """What is in a directory, sorted; `listing` counts what is hidden.

    Raises:
      OSError: it cannot be read.
    """
    with os.scandir(os.fspath(folder)) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    if hidden := len(entries) - len(visible):
        listing.passed_over["hidden"] += hidden
    return visible


def is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory or a link to one."""
    try:
        return entry.is_dir()
    # A link to itself, for one.
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
    """The end of a line that says what a directory without images holds."""
    return f"; found {describe(passed_over)}" if passed_over else ""


@functools.cache
def say_once(line: str) -> None:
    """Warns, however many runs are of the same folder."""
    _logger.warning("%s", line)


def _directories_above(directory: str | os.PathLike) -> set[tuple[int, int]]:
    """Identities of all parents, by its name and by where it lies."""
    absolute, real = os.path.abspath(directory), os.path.realpath(directory)
    found = set()
    for parent in {*Path(absolute).parents, *Path(real).parents}:
        # One that may not be looked into has no link that is followed.
        with contextlib.suppress(OSError):
            found.add(_identity(parent))
    return found


def _identity(directory: str | os.PathLike) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether it is a pipe, a socket or a device."""
    try:
        return not (entry.is_file() or stat.S_ISREG(entry.stat().st_mode))
    # A link to nowhere is named when its turn comes.
    except OSError:
        return False
