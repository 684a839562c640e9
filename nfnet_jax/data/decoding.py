"""Decoding splits into memory: in a few threads, cached, broken images left out.

Decoded arrays are kept as .npy files under $NFNET_JAX_CACHE (else
$XDG_CACHE_HOME/nfnet_jax, else ~/.cache/nfnet_jax); they are safe to delete.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import jax
import numpy as np
from tqdm import tqdm

from nfnet_jax.data.dataset import BadImage, Dataset, Encoded, EncodedSplit, Split
from nfnet_jax.data.images.decode import decode_image
from nfnet_jax.data.images.preprocess import crop_to_size
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.files import cache_directory, write_atomically
from nfnet_jax.utils.strict_json import dumps, loads

# The other half is for the model, the batches and everything else that runs.
_MEMORY_SHARE = 0.5
# Share of the machine's memory, and of a device's, which holds a copy.
_AUTO_SHARE = 0.25
_IMAGES_PER_READ = 64
# Part of the cache key: raise it when decoding changes the arrays.
_CACHE_FORMAT = 3
_MOST_LISTED = 20
_logger = logging.getLogger(__name__)


class BadImages:
    """Broken images of one split of `examples`: each named once, too many refused.

    At most `max_fraction` of them (`config.data.max_bad_fraction`) are passed over.
    """

    def __init__(self, split: str, examples: int, max_fraction: float):
        self._split, self._examples = split, examples
        self._max_fraction = max_fraction
        self._reasons: dict[str, str] = {}

    def add(self, reasons: Mapping[str, str]) -> None:
        """Warns of images by name, each the first time that it is added; raises
        UserError if they are too many."""
        new = {name: why for name, why in reasons.items() if name not in self._reasons}
        for name, reason in new.items():
            _logger.warning("skipped %s: %s", name, reason)
        self._reasons |= new
        if new and len(self._reasons) > self._max_fraction * self._examples:
            raise self.error()

    def error(self) -> UserError:
        """One line that lists the images added so far."""
        reasons = [f"{name} ({why})" for name, why in self._reasons.items()]
        more = len(reasons) - _MOST_LISTED
        return UserError(
            f"{len(reasons)} of {self._examples:,} images of {self._split} cannot be "
            f"decoded, more than data.max_bad_fraction ({self._max_fraction:g}): "
            f"{'; '.join(reasons[:_MOST_LISTED])}{f' and {more} more' * (more > 0)}"
        )


def decode(split: EncodedSplit, encoded: Encoded) -> np.ndarray:
    """Pixels of one image of `split` in its own size, uint8 [h, w, C], or BadImage."""
    if isinstance(encoded, BadImage):
        raise encoded
    if isinstance(encoded, np.ndarray):
        return encoded
    return decode_image(encoded, split.source.channels)


def fit(split: EncodedSplit, image: np.ndarray) -> np.ndarray:
    """The image, resized and cropped if the split resizes: uint8 `split.image_shape`;
    raises UserError for another shape."""
    if split.resize:
        image = crop_to_size(image, split.crop, split.image_shape[0])
    check_shape(split, image.shape)
    return image


def check_shape(split: EncodedSplit, shape: tuple[int, ...]) -> None:
    """Raises UserError for the shape of an image that differs from its split's."""
    if shape != split.image_shape:
        height, width, _ = split.image_shape
        raise UserError(
            f"{split.name} has images of differing sizes ({height}x{width} and"
            f" {shape[0]}x{shape[1]}): set data.image_size to resize them"
        )


def memory_bytes() -> int:
    """Size of the machine's main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_large(dataset: Dataset) -> bool:
    """True if the decoded set takes over a quarter of the host's or device's memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    memory = min(memory_bytes(), stats.get("bytes_limit", memory_bytes()))
    return _decoded_bytes(dataset) > _AUTO_SHARE * memory


def decode_dataset(dataset: Dataset, max_bad_fraction: float) -> Dataset:
    """The same set with both splits in memory, read from the cache if they are there.

    Raises:
      UserError: the set is damaged, has images of differing sizes, more broken images
        than `max_bad_fraction` of a split, or does not fit in memory.
    """
    encoded = cast("tuple[EncodedSplit, EncodedSplit]", (dataset.train, dataset.test))
    caches = [_Cache(split) for split in encoded]
    found = [cache.read() for cache in caches]
    if any(split is None for split in found):
        _check_memory(dataset.name, _decoded_bytes(dataset))
    ready = []
    for split, cache, decoded in zip(encoded, caches, found, strict=True):
        if decoded is None:
            decoded = _decode_all(split)
            cache.write(decoded)
        bad = BadImages(split.name, len(split), max_bad_fraction)
        bad.add(decoded.skipped)
        if not len(decoded):
            raise bad.error()
        ready.append(dataclasses.replace(decoded, source=split.source))
    train, test = ready
    highest = max(train.labels.max(initial=0), test.labels.max(initial=0))
    numbers = tuple(str(label) for label in range(highest + 1))
    return Dataset(dataset.name, train, test, dataset.class_names or numbers)


def _decoded_bytes(dataset: Dataset) -> int:
    """Bytes of both splits as uint8 pixels."""
    examples = len(dataset.train) + len(dataset.test)
    return examples * int(np.prod(dataset.image_shape))


def _check_memory(name: str, needed: int) -> None:
    available = memory_bytes()
    if needed > _MEMORY_SHARE * available:
        raise UserError(
            f"{name} decoded takes {needed / 2**30:.1f} GiB, more than"
            f" {_MEMORY_SHARE:.0%} of this machine's {available / 2**30:.1f} GiB; set "
            "data.loader=stream, a smaller data.image_size, or slice the splits "
            "(train[:10%])"
        )


def _decode_all(split: EncodedSplit) -> Split:
    images = np.empty((len(split), *split.image_shape), np.uint8)
    labels = np.empty(len(split), np.int32)
    skipped: dict[int, str] = {}

    def fill(start: int) -> int:
        rows = range(start, min(start + _IMAGES_PER_READ, len(split)))
        records = split.source.read(rows)
        for row, (encoded, labels[row]) in zip(rows, records, strict=True):
            try:
                image = decode(split, encoded)
            except BadImage as error:
                skipped[row] = str(error)
                continue
            images[row] = fit(split, image)
        return len(rows)

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    # disable=None: a bar on a terminal, silence in a log.
    with tqdm(
        total=len(split), desc=f"decoding {split.name}", unit="img", disable=None
    ) as bar:
        try:
            for done in pool.map(fill, range(0, len(split), _IMAGES_PER_READ)):
                bar.update(done)
        finally:
            pool.shutdown(cancel_futures=True)
    reasons = {split.source.describe(row): skipped[row] for row in sorted(skipped)}
    if reasons:
        whole = np.isin(np.arange(len(split)), list(skipped), invert=True)
        images, labels = images[whole], labels[whole]
    return Split(images, labels, reasons)


@dataclasses.dataclass(frozen=True)
class _Cache:
    """Files that keep the decoded arrays of one split."""

    encoded: EncodedSplit

    def read(self) -> Split | None:
        """The stored split; None if absent or damaged."""
        try:
            # Mapped, not copied: test images may never be looked at.
            images = np.load(self._path("images.npy"), "r", allow_pickle=False)
            labels = np.load(self._path("labels.npy"), allow_pickle=False)
            path = self._path("skipped.json")
            skipped = loads(path.read_bytes()) if path.exists() else {}
            split = Split(images, labels, skipped)
        # A file cut short raises ValueError or EOFError, depending on the place.
        except (OSError, ValueError, EOFError):
            return None
        whole = len(split) + len(split.skipped) == len(self.encoded)
        return split if whole else None

    def write(self, split: Split) -> None:
        """Stores the arrays; warns if that is impossible."""
        try:
            if split.skipped:
                text = dumps(split.skipped).encode()
                path = self._path("skipped.json")
                write_atomically(path, lambda file: file.write(text))
            for part in ("images", "labels"):
                array = getattr(split, part)
                save = functools.partial(np.save, arr=array, allow_pickle=False)
                write_atomically(self._path(f"{part}.npy"), save)
        except OSError as error:
            warnings.warn(
                f"decoded {self.encoded.name} could not be cached ({error}); set"
                " NFNET_JAX_CACHE to a writable directory to decode it only once",
                RuntimeWarning,
                stacklevel=2,
            )

    def _path(self, part: str) -> Path:
        readable = re.sub(r"[^\w.]+", "-", self.encoded.name)[:100]
        return cache_directory() / f"{readable}-{self._key}.{part}"

    @functools.cached_property
    def _key(self) -> str:
        """Digest of everything that the arrays depend on."""
        identity = {
            "format": _CACHE_FORMAT,
            "shape": self.encoded.image_shape,
            "resize": self.encoded.resize,
            "crop": self.encoded.crop,
            **self.encoded.source.identity(),
        }
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
