"""Decoding splits into memory: whether they fit, and how in a few threads."""

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import jax
import numpy as np
from tqdm import tqdm

from nfnet_jax.data.dataset import BadImage, Dataset, Encoded, EncodedSplit, Split
from nfnet_jax.data.images.files import decode_image
from nfnet_jax.data.images.preprocess import crop_to_size
from nfnet_jax.data.loading.decoded_cache import DecodedCache
from nfnet_jax.utils.errors import UserError

# The other half is for the model, the batches and everything else that runs.
_MEMORY_SHARE = 0.5
_IMAGES_PER_READ = 64
# Part of the cache key: raise it when decoding changes what the arrays hold.
_CACHE_FORMAT = 3


def decode_dataset(dataset: Dataset) -> Dataset:
    """The same set with both splits in memory, from the cache where they are there.

    Raises:
      UserError: it is damaged, of differing image sizes, or does not fit in memory.
    """
    encoded = cast("tuple[EncodedSplit, EncodedSplit]", (dataset.train, dataset.test))
    caches = [_cache(dataset.name, split) for split in encoded]
    found = [c.read(len(s)) for c, s in zip(caches, encoded, strict=True)]
    if any(split is None for split in found):
        _check_memory(dataset.name, decoded_bytes(dataset))
    train, test = (
        dataclasses.replace(
            _decode_and_cache(split, cache) if ready is None else ready,
            source=split.source,
        )
        for split, cache, ready in zip(encoded, caches, found, strict=True)
    )
    highest = max(train.labels.max(initial=0), test.labels.max(initial=0))
    numbers = tuple(str(label) for label in range(highest + 1))
    return Dataset(dataset.name, train, test, dataset.class_names or numbers)


def decoded_bytes(dataset: Dataset) -> int:
    """Bytes of both splits as uint8 pixels."""
    examples = len(dataset.train) + len(dataset.test)
    return examples * int(np.prod(dataset.image_shape))


def decode(split: EncodedSplit, encoded: Encoded) -> np.ndarray:
    """Pixels of one image of `split`, of its own size, uint8 [h, w, C].

    Raises:
      BadImage: it is broken.
    """
    if isinstance(encoded, BadImage):
        raise encoded
    if isinstance(encoded, np.ndarray):
        return encoded
    return decode_image(encoded, split.source.channels)


def fit(split: EncodedSplit, image: np.ndarray) -> np.ndarray:
    """The image resized and cropped where `split.resize` says so.

    Raises:
      UserError: it has not the shape that all should have.
    """
    if split.resize:
        image = crop_to_size(image, split.crop, split.image_shape[0])
    return check_shape(split, image)


def check_shape(split: EncodedSplit, image: np.ndarray) -> np.ndarray:
    """The image; UserError where it has not the shape that all should have."""
    if image.shape != split.image_shape:
        found, expected = image.shape, split.image_shape
        raise UserError(
            f"{split.name} has images of differing sizes ({expected[0]}x{expected[1]} "
            f"and {found[0]}x{found[1]}): set data.image_size to resize them"
        )
    return image


def memory_bytes() -> int:
    """Size of the machine's main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_bytes() -> int:
    """Size of a device's memory; the machine's where it does not tell."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", memory_bytes())


def _check_memory(name: str, needed: int) -> None:
    available = memory_bytes()
    if needed > _MEMORY_SHARE * available:
        raise UserError(
            f"{name} decoded takes {needed / 2**30:.1f} GiB, more than"
            f" {_MEMORY_SHARE:.0%} of this machine's {available / 2**30:.1f} GiB; set "
            "data.loader=stream, a smaller data.image_size, or slice the splits "
            "(train[:10%])"
        )


def _cache(name: str, split: EncodedSplit) -> DecodedCache:
    identity = {
        "format": _CACHE_FORMAT,
        "shape": split.image_shape,
        "resize": split.resize,
        "crop": split.crop,
        **split.source.identity(),
    }
    return DecodedCache(name, split.name, identity)


def _decode_and_cache(split: EncodedSplit, cache: DecodedCache) -> Split:
    decoded = _decode_all(split)
    cache.write(decoded)
    return decoded


def _decode_all(split: EncodedSplit) -> Split:
    images = np.empty((len(split), *split.image_shape), np.uint8)
    labels = np.empty(len(split), np.int32)
    skipped: dict[int, str] = {}

    def fill(start: int) -> int:
        indices = range(start, min(start + _IMAGES_PER_READ, len(split)))
        records = split.source.read(indices)
        for index, (encoded, labels[index]) in zip(indices, records, strict=True):
            try:
                image = decode(split, encoded)
            except BadImage as error:
                skipped[index] = str(error)
                continue
            images[index] = fit(split, image)
        return len(indices)

    _map_blocks(fill, len(split), f"decoding {split.name}")
    reasons = {split.source.describe(i): skipped[i] for i in sorted(skipped)}
    if reasons:
        whole = np.isin(np.arange(len(split)), list(skipped), invert=True)
        images, labels = images[whole], labels[whole]
    return Split(images, labels, reasons)


def _map_blocks(fill: Callable[[int], int], count: int, description: str) -> None:
    """Calls `fill(start)` on every start of a block of examples, in a few threads.

    It returns how many examples it did. A terminal shows a bar.
    """
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    # disable=None: a bar on a terminal, silence in a log.
    with tqdm(total=count, desc=description, unit="img", disable=None) as bar:
        try:
            for done in pool.map(fill, range(0, count, _IMAGES_PER_READ)):
                bar.update(done)
        finally:
            pool.shutdown(cancel_futures=True)
