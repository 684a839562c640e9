"""What a data set holds: by that a run knows its data, wherever they lie."""

import hashlib
import itertools
import os
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nfnet_jax.data.dataset import (
    FINGERPRINT_BYTES,
    ArraySource,
    BadImage,
    Dataset,
    Split,
)
from nfnet_jax.data.images.files import read_file

_DIGITS = 16
_BLOCK = 64


def contents(dataset: Dataset) -> dict[str, str]:
    """{"train": "1,437 images (0123456789abcdef)", "test": ...}

    In the brackets a digest of images, classes and their order.
    """
    found = {}
    for part in ("train", "test"):
        split = getattr(dataset, part)
        source = split.source
        if isinstance(split, Split) and source is None:
            source = ArraySource(dataset.name, split.images, split.labels)
        digest = source.fingerprint(dataset.class_names)[:_DIGITS]
        found[part] = f"{len(source):,} images ({digest})"
    return found


def digest_files(root: Path, paths: Sequence[Path]) -> str:
    """A digest of files below `root`: of their paths, of their sizes, and of the first
    `FINGERPRINT_BYTES` of their contents."""
    # Some machines decompose the names of files.
    names = [unicodedata.normalize("NFC", path.as_posix()) for path in paths]
    places = [os.path.join(root, path) for path in paths]
    sizes = _map(_size, places)
    digest = hashlib.sha256()
    for name, size in zip(names, sizes, strict=True):
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
    whole = sum(total <= FINGERPRINT_BYTES for total in itertools.accumulate(sizes))
    for part in _map(_digest, places[:whole]):
        digest.update(part)
    return digest.hexdigest()


def _map(function: Callable[[str], Any], places: list[str]) -> list[Any]:
    """Of many small files, which may lie on another machine."""
    blocks = [places[i : i + _BLOCK] for i in range(0, len(places), _BLOCK)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda block: [function(place) for place in block], blocks)
        return list(itertools.chain.from_iterable(results))


def _size(place: str) -> int:
    try:
        return os.stat(place).st_size
    # Its turn to be named comes with decoding.
    except OSError:
        return 0


def _digest(place: str) -> bytes:
    try:
        return hashlib.sha256(read_file(place)).digest()
    except BadImage:
        return b""
