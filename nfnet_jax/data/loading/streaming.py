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
from collections.abc import Callable, Generator, Iterator
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from nfnet_jax.data.augment.crops import crop_draws, take_crops
from nfnet_jax.data.augment.mixing import drawn_per_image
from nfnet_jax.data.dataset import EncodedSplit
from nfnet_jax.data.loading.bad_images import BadImages
from nfnet_jax.data.loading.batches import (
    Batch,
    Batches,
    batch_positions,
    every_row,
    run_keys,
)
from nfnet_jax.data.loading.shared_slots import Slots, shared_slots
from nfnet_jax.data.loading.shuffle import drawn_positions, host_order
from nfnet_jax.data.loading.workers import HostBatches, Piece, center_crop, random_crop
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.runtime import end_with_parent, keep_host_memory

# Batches on the device before they are asked for, pieces of a worker that wait.
_ON_DEVICE = 2
_AHEAD_OF_READER = 2


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

    def materialize(host_batch, number, local_rows=every_row) -> Batch:
        images, labels = host_batch
        positions = local_rows(batch_positions(number, size))
        if not augment.random_resized_crop:
            drawn, _ = drawn_positions(positions, per_image, augment.repeats)
            draws = crop_draws(keys.crop, drawn)
            images = take_crops(images, jnp.arange(len(drawn)), draws, augment)
        return Batch(images, labels, positions)

    return Batches(_iterator(batches, steps, config, mesh), materialize, sharded=True)


def evaluation_batches(
    split: EncodedSplit, config: ConfigDict, size: int, mesh: Mesh
) -> Batches:
    """The examples in their order, broken ones and what fills the last batch with -1
    for a label."""
    size = -(-min(size, len(split)) // mesh.size) * mesh.size
    batches = HostBatches(split, size, center_crop)

    def materialize(host_batch, number) -> Batch:
        images, labels = host_batch
        return Batch(images, labels, batch_positions(number, size))

    count = -(-len(split) // size)
    return Batches(_iterator(batches, count, config, mesh), materialize, sharded=True)


def _iterator(
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

    def iterate(number: int):
        with _pieces(local, number, stop, worker_count(config)) as (pieces, slots):
            made = (assemble(local, pieces, slots, bad) for _ in range(number, stop))
            yield from _ahead(map(put, made))

    return iterate


def worker_count(config: ConfigDict) -> int:
    """`config.data.workers`, or one for each core but at most 16."""
    if config.data.workers is not None:
        return config.data.workers
    return min(16, os.cpu_count() or 1)


@contextlib.contextmanager
def _pieces(
    batches: HostBatches, start: int, stop: int, workers: int
) -> Iterator[tuple[Iterator[tuple[int, Piece]], Slots]]:
    """The pieces of the batches `start` … `stop` - 1, each with its turn."""
    count = batches.pieces
    # Grain has nothing for a worker without a piece.
    workers = min(workers, (stop - start) * count)
    shape = (batches.piece_rows, *batches.split.image_shape)
    with shared_slots(max(workers, 1) * (_AHEAD_OF_READER + 2), shape) as slots:
        fill = functools.partial(_fill, batches, slots, start * count)
        dataset = grain.MapDataset.range((stop - start) * count).map(fill)
        threads = 0 if workers else 1
        dataset = dataset.to_iter_dataset(grain.ReadOptions(threads, _AHEAD_OF_READER))
        if workers:
            # Grain reads its own flags, which a program without app.run never parses.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(workers, _AHEAD_OF_READER)
            dataset = dataset.mp_prefetch(options, worker_init_fn=_start_worker)
        iterator = iter(dataset)
        try:
            yield enumerate(_read(iterator)), slots
        finally:
            slots.free_all()
            iterator.close()


def _fill(batches: HostBatches, slots: Slots, first: int, turn: int) -> Piece:
    """Makes the piece number `first` + `turn` in the slot of its turn."""
    return batches.fill(first + turn, slots.to_fill(turn))


def _read(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces; UserError where a worker process has died."""
    try:
        yield from pieces
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
    batches: HostBatches,
    pieces: Iterator[tuple[int, Piece]],
    slots: Slots,
    bad: BadImages,
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the next batch; broken images are named.

    Raises:
      UserError: too many broken images, or what a worker came upon.
    """
    images = np.empty((batches.rows, *batches.split.image_shape), np.uint8)
    labels: list[int] = []
    for turn, piece in itertools.islice(pieces, batches.pieces):
        if piece.error:
            raise UserError(piece.error)
        for index, reason in piece.bad.items():
            bad.add(batches.split.source.describe(index), reason)
        first = len(labels)
        labels += piece.labels
        slots.take(turn, images[first : len(labels)])
    return images, np.asarray(labels, np.int32)


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches, some of them on their way to the device already."""
    waiting = collections.deque(itertools.islice(batches, _ON_DEVICE))
    while waiting:
        yield waiting.popleft()
        waiting.extend(itertools.islice(batches, 1))


def _start_worker(index: int, count: int) -> None:
    """Leaves Ctrl-C and SIGTERM, which a group of processes gets together, to the
    parent, and ends when the parent is gone."""
    end_with_parent(os.getppid())
    keep_host_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
