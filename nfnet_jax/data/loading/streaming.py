"""Batches of a split that stays encoded: Grain's workers decode, crop and flip.

The images of a worker depend on the seed and the draw ids alone, so a run that
continues from batch n, with any number of workers, sees the same batches.
"""

import collections
import contextlib
import dataclasses
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
from nfnet_jax.data.batches import (
    Batch,
    Batches,
    batch_example_ids,
    every_row,
    run_keys,
)
from nfnet_jax.data.dataset import EncodedSplit
from nfnet_jax.data.decoding import BadImages
from nfnet_jax.data.loading.shared_slots import Slots, shared_slots
from nfnet_jax.data.loading.shuffle import example_draws, host_feistel_shuffle
from nfnet_jax.data.loading.workers import HostBatches, Piece, center_crop, random_crop
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.runtime import end_with_parent, keep_host_memory

# Batches put on the device early, and pieces that wait in a worker.
_ON_DEVICE = 2
_AHEAD_OF_READER = 2


def training_batches(
    split: EncodedSplit,
    data: ConfigDict,
    mesh: Mesh,
    *,
    seed: int,
    per_example: int,
    steps: int,
) -> Batches:
    """Shuffled batches of `data.batch_size`, up to batch `steps` - 1.

    With `data.augment.random_resized_crop` workers crop and flip; without, they resize,
    and images are cropped as those of the memory loader are.
    """
    keys, size, augment = run_keys(seed), data.batch_size, data.augment
    crop = center_crop
    if augment.random_resized_crop:
        crop = functools.partial(random_crop, seed=seed, flip=augment.flip)
    batches = HostBatches(
        split,
        size * per_example,
        crop,
        host_feistel_shuffle(keys.order, len(split), steps * size * per_example),
        augment.repeats,
        per_example,
        allowed_bad=int(data.max_bad_fraction * len(split)),
    )

    def materialize(host_batch, batch_index, local_rows=every_row) -> Batch:
        images, labels = host_batch
        example_ids = local_rows(batch_example_ids(batch_index, size))
        if not augment.random_resized_crop:
            draws = crop_draws(keys.crop, example_draws(example_ids, per_example))
            images = take_crops(images, jnp.arange(len(images)), draws, augment)
        return Batch(images, labels, example_ids)

    return Batches(_iterator(batches, steps, data, mesh), materialize, sharded=True)


def evaluation_batches(split: EncodedSplit, data: ConfigDict, mesh: Mesh) -> Batches:
    """The examples in their order; broken ones, and the rows that fill the last batch,
    have the label -1."""
    size = -(-min(data.eval_batch_size, len(split)) // mesh.size) * mesh.size
    batches = HostBatches(split, size, center_crop)

    def materialize(host_batch, batch_index) -> Batch:
        images, labels = host_batch
        return Batch(images, labels, batch_example_ids(batch_index, size))

    count = -(-len(split) // size)
    return Batches(_iterator(batches, count, data, mesh), materialize, sharded=True)


def _iterator(
    batches: HostBatches, stop: int, data: ConfigDict, mesh: Mesh
) -> Callable[[int], Generator[Any, None, None]]:
    split = batches.split
    bad = BadImages(split.name, len(split), data.max_bad_fraction)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    local = dataclasses.replace(
        batches, process=jax.process_index(), processes=jax.process_count()
    )
    workers = data.workers
    if workers is None:
        workers = min(16, os.cpu_count() or 1)

    def put(arrays):
        return tuple(
            jax.make_array_from_process_local_data(sharding, array) for array in arrays
        )

    def iterate(batch_index: int):
        with _pieces(local, batch_index, stop, workers) as (pieces, slots):
            left = range(batch_index, stop)
            yield from _ahead(put(assemble(local, pieces, slots, bad)) for _ in left)

    return iterate


@contextlib.contextmanager
def _pieces(
    batches: HostBatches, start: int, stop: int, workers: int
) -> Iterator[tuple[Iterator[tuple[int, Piece]], Slots]]:
    """Pieces of the batches `start` … `stop` - 1, each with its turn."""
    count = batches.pieces
    # Grain fails with more workers than pieces.
    workers = min(workers, (stop - start) * count)
    shape = (batches.piece_size, *batches.split.image_shape)
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
    """Makes the piece `first` + `turn` in the slot of its turn."""
    return batches.fill(first + turn, slots.to_fill(turn))


def _read(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces; UserError if a worker process dies."""
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
    """Images and labels of the next batch; broken images are named, and UserError is
    raised for too many of them or for the error of a worker."""
    images = np.empty((batches.local_size, *batches.split.image_shape), np.uint8)
    labels: list[int] = []
    for turn, piece in itertools.islice(pieces, batches.pieces):
        if piece.error:
            raise UserError(piece.error)
        for row, reason in piece.bad.items():
            bad.add({batches.split.source.describe(row): reason})
        first = len(labels)
        labels += piece.labels
        slots.take(turn, images[first : len(labels)])
    return images, np.asarray(labels, np.int32)


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches, `_ON_DEVICE` of them on their way to the device early."""
    waiting = collections.deque(itertools.islice(batches, _ON_DEVICE))
    while waiting:
        yield waiting.popleft()
        waiting.extend(itertools.islice(batches, 1))


def _start_worker(index: int, count: int) -> None:
    """Ignores Ctrl-C and SIGTERM, which the whole group of processes gets, and ends
    when the parent is gone."""
    end_with_parent(os.getppid())
    keep_host_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
