"""Decoded splits kept as .npy files, so that a data set is decoded once.

They lie under $NFNET_JAX_CACHE (else $XDG_CACHE_HOME/nfnet_jax, else
~/.cache/nfnet_jax) and are safe to delete.
"""

import dataclasses
import functools
import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_jax.data.dataset import Split
from nfnet_jax.utils.files import cache_directory, write_atomically
from nfnet_jax.utils.strict_json import dumps, loads


@dataclasses.dataclass(frozen=True)
class DecodedCache:
    """Where the arrays of one split are kept.

    `name`: of the data set, for messages. `readable`: begins the file names.
    `identity`: all that the arrays depend on, as JSON can hold it; other identities
    have other files.
    """

    name: str
    readable: str
    identity: Mapping[str, Any]

    def read(self, count: int) -> Split | None:
        """What is left of `count` examples, stored earlier; None where damaged."""
        try:
            # Read when they are looked at, and not copied: test images may never be.
            images = np.load(self._path("images"), mmap_mode="r", allow_pickle=False)
            labels = np.load(self._path("labels"), allow_pickle=False)
            split = Split(images, labels, self._read_skipped())
        # A file cut short raises ValueError or EOFError, depending on where.
        except (OSError, ValueError, EOFError):
            return None
        return split if len(split) + len(split.skipped) == count else None

    def write(self, split: Split) -> None:
        """Stores the arrays; only warns where that is impossible."""
        try:
            if split.skipped:
                text = dumps(split.skipped).encode()
                write_atomically(self._skipped_path, lambda file: file.write(text))
            for part in ("images", "labels"):
                array = getattr(split, part)
                save = functools.partial(np.save, arr=array, allow_pickle=False)
                write_atomically(self._path(part), save)
        except OSError as error:
            warnings.warn(
                f"decoded {self.name} could not be cached ({error}); set"
                " NFNET_JAX_CACHE to a writable directory to decode it only once",
                RuntimeWarning,
                stacklevel=2,
            )

    def _read_skipped(self) -> dict[str, str]:
        path = self._skipped_path
        return loads(path.read_bytes()) if path.exists() else {}

    @property
    def _skipped_path(self) -> Path:
        return self._path("skipped").with_suffix(".json")

    def _path(self, part: str) -> Path:
        key = hashlib.sha256(json.dumps(self.identity).encode()).hexdigest()[:16]
        readable = re.sub(r"[^\w.]+", "-", self.readable)[:100]
        return cache_directory() / f"{readable}-{key}.{part}.npy"
