"""What a data set holds: by that a run knows its data, wherever they lie."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nfnet_jax.data.dataset import Dataset, Split
from nfnet_jax.data.source import FINGERPRINT_BYTES, ArraySource

_DIGITS = 16


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
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        sizes = list(pool.map(lambda path: _size(root / path), paths))
        digest = hashlib.sha256()
        whole, total = 0, 0
        for path, size in zip(paths, sizes, strict=True):
            text = f"{path.as_posix()}\0{size}\0"
            digest.update(text.encode(errors="surrogateescape"))
            total += size
            whole += total <= FINGERPRINT_BYTES
        for part in pool.map(lambda path: _digest(root / path), paths[:whole]):
            digest.update(part)
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    # Its turn to be named comes with decoding.
    except OSError:
        return 0


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""
