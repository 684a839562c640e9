"""Batches of a split that lies in device memory, drawn inside the compiled step."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from nfnet_jax.data.augment.crops import alternate_flips, crop_draws, take_crops
from nfnet_jax.data.batches import (
    Batch,
    Batches,
    batch_example_ids,
    every_row,
    run_keys,
)
from nfnet_jax.data.dataset import Split
from nfnet_jax.data.loading.shuffle import example_draws, feistel_shuffle, stream_index


def training_batches(
    split: Split, data: ConfigDict, mesh: Mesh, *, seed: int, per_example: int
) -> Batches:
    """Shuffled, cropped and flipped batches of `data.batch_size`, without end.

    `data`: `config.data`. `per_example`: images drawn for an example.
    """
    keys, augment = run_keys(seed), data.augment
    arrays = _put(split, mesh)

    def iterate(batch_index: int):
        while True:
            yield arrays

    def materialize(arrays, batch_index, local_rows=every_row) -> Batch:
        images, labels = arrays
        example_ids = local_rows(batch_example_ids(batch_index, data.batch_size))
        draw_ids = example_draws(example_ids, per_example)
        places = stream_index(draw_ids, per_example, augment.repeats)
        rows = feistel_shuffle(keys.order, places, len(split))
        draws = crop_draws(keys.crop, draw_ids)
        if augment.alternate_flip:
            epochs = places // len(split)
            draws = draws._replace(flip=alternate_flips(keys.order, rows, epochs))
        crops = take_crops(images, rows, draws, augment)
        return Batch(crops, labels[rows], example_ids)

    return Batches(iterate, materialize)


def evaluation_batches(split: Split, size: int, mesh: Mesh) -> Batches:
    """The examples in their order; the last batch is filled up with label -1."""
    size = min(size, len(split))
    arrays = _put(split, mesh)

    def iterate(batch_index: int):
        for _ in range(batch_index, -(-len(split) // size)):
            yield arrays

    def materialize(arrays, batch_index) -> Batch:
        images, labels = arrays
        example_ids = batch_example_ids(batch_index, size)
        real = example_ids < len(split)
        rows = jnp.where(real, example_ids, 0)
        return Batch(images[rows], jnp.where(real, labels[rows], -1), example_ids)

    return Batches(iterate, materialize)


def _put(split: Split, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """Images and labels on every device; every process has them all."""
    whole = NamedSharding(mesh, PartitionSpec())
    return tuple(
        jax.make_array_from_process_local_data(whole, array)
        for array in (split.images, split.labels)
    )
