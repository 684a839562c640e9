"""Source of image files: reading, identity and fingerprint of a folder's split."""

import dataclasses
import hashlib
import itertools
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_jax.data.dataset import FINGERPRINT_BYTES, BadImage, Encoded
from nfnet_jax.data.images.decode import read_file

_FILES_PER_TASK = 64


@dataclasses.dataclass(frozen=True, eq=False)
class FileSource:
    """Files of one split: `paths` below `root`, and their labels int32 [N]."""

    root: Path
    paths: Sequence[Path]
    labels: np.ndarray
    channels: int = 3

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        return [(self._content(row), int(self.labels[row])) for row in rows]

    def _content(self, row: int) -> Encoded:
        try:
            return read_file(self.root / self.paths[row])
        except BadImage as error:
            return error

    def describe(self, row: int) -> str:
        return os.fspath(self.root / self.paths[row])

    def identity(self) -> Mapping[str, Any]:
        files = [[os.fspath(p), *_status(self.root / p)] for p in self.paths]
        return {"files": files, "labels": self.labels.tolist()}

    def fingerprint(self, class_names: Sequence[str]) -> str:
        """Digest of all paths and sizes and the first `FINGERPRINT_BYTES` of content.

        Directories are classes, so their names are in the paths.
        """
        places = [os.path.join(self.root, path) for path in self.paths]
        sizes = [size for size, *_ in _map(_status, places)]
        digest = hashlib.sha256()
        for path, size in zip(self.paths, sizes, strict=True):
            name = f"{normalized_name(path)}\0{size}\0"
            digest.update(name.encode(errors="surrogateescape"))
        whole = sum(total <= FINGERPRINT_BYTES for total in itertools.accumulate(sizes))
        for part in _map(_digest, places[:whole]):
            digest.update(part)
        return digest.hexdigest()


def normalized_name(path: Path) -> str:
    """The path in Unicode's composed form: some machines decompose names of files."""
    return unicodedata.normalize("NFC", path.as_posix())


def _status(path: str | Path) -> tuple[int, ...]:
    """Size of a file, and numbers that change with its content, whatever times its
    owner sets."""
    try:
        found = os.stat(path)
    # For example a link to nowhere, which is named when it is decoded.
    except OSError:
        return (0,)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _map(function: Callable[[str], Any], places: list[str]) -> list[Any]:
    """`function` of many small files, which may lie on another machine."""
    step = _FILES_PER_TASK
    tasks = [places[i : i + step] for i in range(0, len(places), step)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda task: [function(place) for place in task], tasks)
        return list(itertools.chain.from_iterable(results))


def _digest(place: str) -> bytes:
    try:
        return hashlib.sha256(read_file(place)).digest()
    except BadImage:
        return b""
