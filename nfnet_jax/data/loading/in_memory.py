"""Batches of a split that lies in device memory, as uint8."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from nfnet_jax.data.augment.crops import alternate_flips, crop_draws, take_crops
from nfnet_jax.data.augment.mixing import drawn_per_image
from nfnet_jax.data.dataset import Split
from nfnet_jax.data.loading.batches import (
    Batch,
    Batches,
    batch_positions,
    every_row,
    run_keys,
)
from nfnet_jax.data.loading.shuffle import drawn_positions, shuffled_indices


def training_batches(split: Split, config: ConfigDict, mesh: Mesh) -> Batches:
    """Shuffled, cropped and flipped batches of `config.data.batch_size`, endless."""
    keys, size = run_keys(config.seed), config.data.batch_size
    augment, per_image = config.data.augment, drawn_per_image(config.train)
    data = _put(split, mesh)

    def iterate(number: int):
        while True:
            yield data

    def materialize(data, number, local_rows=every_row) -> Batch:
        images, labels = data
        positions = local_rows(batch_positions(number, size))
        drawn, places = drawn_positions(positions, per_image, augment.repeats)
        indices = shuffled_indices(keys.order, places, len(split))
        draws = crop_draws(keys.crop, drawn)
        if augment.alternate_flip:
            epochs = places // len(split)
            draws = draws.at[:, 2].set(alternate_flips(keys.order, indices, epochs))
        crops = take_crops(images, indices, draws, augment)
        return Batch(crops, labels[indices], positions)

    return Batches(iterate, materialize)


def evaluation_batches(split: Split, size: int, mesh: Mesh) -> Batches:
    """The examples in their order; the last batch is filled up with label -1."""
    size = min(size, len(split))
    data = _put(split, mesh)

    def iterate(number: int):
        for _ in range(number, -(-len(split) // size)):
            yield data

    def materialize(data, number) -> Batch:
        images, labels = data
        positions = batch_positions(number, size)
        real = positions < len(split)
        indices = jnp.where(real, positions, 0)
        return Batch(images[indices], jnp.where(real, labels[indices], -1), positions)

    return Batches(iterate, materialize)


def _put(split: Split, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """Images and labels on every device; every process has them all."""
    whole = NamedSharding(mesh, PartitionSpec())
    return tuple(
        jax.make_array_from_process_local_data(whole, array)
        for array in (split.images, split.labels)
    )
