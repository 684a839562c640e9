"""Batches of a split that stays encoded: Grain's workers decode, crop and flip.

What a worker makes depends on the seed and the positions alone, so a run that continues
from batch number n, with any number of workers, sees what it would have seen.
"""

import collections
import contextlib
import functools
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from nfnet_jax.data.augment import take_crops
from nfnet_jax.data.bad_images import BadImages
from nfnet_jax.data.batches import (
    Batch,
    Batches,
    batch_positions,
    every_row,
    run_keys,
)
from nfnet_jax.data.host_batches import HostBatches, center_crop, random_crop
from nfnet_jax.data.memory import crop_draws
from nfnet_jax.data.mixing import drawn_per_image
from nfnet_jax.data.order import drawn_positions, host_order
from nfnet_jax.data.source import EncodedSplit
from nfnet_jax.errors import UserError
from nfnet_jax.host_memory import keep_host_memory

_ON_DEVICE = 2
_PER_WORKER = 2


def training_batches(
    split: EncodedSplit, config: ConfigDict, steps: int, mesh: Mesh
) -> Batches:
    """Shuffled batches of `config.data.batch_size`, until batch number `steps`.

    With `config.data.augment.random_resized_crop` crops and flips are the workers';
    without, images are resized by them, and cropped as the memory loader's are.
    """
    keys, size = run_keys(config.seed), config.data.batch_size
    augment, per_image = config.data.augment, drawn_per_image(config.train)
    crop = center_crop
    if augment.random_resized_crop:
        crop = functools.partial(random_crop, seed=config.seed, flip=augment.flip)
    order = host_order(keys.order, len(split), steps * size * per_image)
    batches = HostBatches(
        split,
        size * per_image,
        crop,
        order,
        augment.repeats,
        per_image,
        allowed_bad=int(config.data.max_bad_fraction * len(split)),
    )

    def take(fed, number, own=every_row) -> Batch:
        images, labels = fed
        positions = own(batch_positions(number, size))
        if not augment.random_resized_crop:
            drawn, _ = drawn_positions(positions, per_image, augment.repeats)
            draws = crop_draws(keys.crop, drawn)
            images = take_crops(images, jnp.arange(len(drawn)), draws, augment)
        return Batch(images, labels, positions)

    return Batches(_feeder(batches, steps, config, mesh), take, divided=True)


def evaluation_batches(
    split: EncodedSplit, config: ConfigDict, size: int, mesh: Mesh
) -> Batches:
    """The examples in their order, broken ones and what fills the last batch with -1
    for a label."""
    size = -(-min(size, len(split)) // mesh.size) * mesh.size
    batches = HostBatches(split, size, center_crop)

    def take(fed, number) -> Batch:
        return Batch(*fed, batch_positions(number, size))

    count = -(-len(split) // size)
    return Batches(_feeder(batches, count, config, mesh), take, divided=True)


def _feeder(
    batches: HostBatches, stop: int, config: ConfigDict, mesh: Mesh
) -> Callable[[int], Generator[Any, None, None]]:
    split = batches.split
    fraction = config.data.max_bad_fraction
    bad = BadImages(split.name, len(split), fraction)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    local = batches.of_process(jax.process_index(), jax.process_count())

    def put(arrays):
        return tuple(
            jax.make_array_from_process_local_data(sharding, array) for array in arrays
        )

    def feed(number: int):
        with _pieces(local, number, stop, worker_count(config)) as pieces:
            yield from _ahead(map(put, assemble(local, pieces, bad)))

    return feed


def worker_count(config: ConfigDict) -> int:
    """`config.data.workers`, or one for each core but at most 16."""
    if config.data.workers is not None:
        return config.data.workers
    return min(16, os.cpu_count() or 1)


@contextlib.contextmanager
def _pieces(
    batches: HostBatches, start: int, stop: int, workers: int
) -> Iterator[Iterator[dict[str, Any]]]:
    """The pieces of the batches `start` … `stop` - 1, in their order."""
    count = batches.pieces
    # Grain has nothing for a worker without a piece.
    workers = min(workers, (stop - start) * count)
    dataset = grain.MapDataset.range(start * count, stop * count).map(batches.piece)
    threads = 0 if workers else 1
    dataset = dataset.to_iter_dataset(grain.ReadOptions(threads, _PER_WORKER))
    if workers:
        # Grain reads its own flags, which a program without app.run never parses.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(workers, _PER_WORKER)
        dataset = dataset.mp_prefetch(options, worker_init_fn=_start_worker)
    iterator = iter(dataset)
    try:
        yield _read(iterator)
    finally:
        iterator.close()


def _read(iterator: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Its elements; UserError where a worker process has died."""
    try:
        yield from iterator
    except RuntimeError as error:
        found = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
        if not found:
            raise
        raise UserError(
            f"a worker of the data loader died with exit code {found[1]} (-9: killed, "
            "as for lack of memory); continue with the same command, or start again "
            "with a smaller data.workers or data.batch_size"
        ) from error


def assemble(
    batches: HostBatches, pieces: Iterable[dict[str, Any]], bad: BadImages
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of whole batches; broken images are named.

    Raises:
      UserError: too many broken images, or what a worker came upon.
    """
    pieces = iter(pieces)
    while parts := list(itertools.islice(pieces, batches.pieces)):
        for part in parts:
            if part["error"]:
                raise UserError(part["error"])
            for index, reason in part["bad"]:
                bad.add(batches.split.source.describe(int(index)), reason)
        # Copies, so that the memory shared with the workers is free at once.
        yield tuple(
            np.concatenate([np.asarray(part[key]) for part in parts])
            for key in ("images", "labels")
        )


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches, some of them on their way to the device already."""
    waiting = collections.deque(itertools.islice(batches, _ON_DEVICE))
    while waiting:
        yield waiting.popleft()
        waiting.extend(itertools.islice(batches, 1))


def _start_worker(index: int, count: int) -> None:
    """Leaves Ctrl-C to the parent, and ends when the parent is gone."""
    keep_host_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
