"""A training batch, made visible again."""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nfnet_jax.data.augment import check_augmentation
from nfnet_jax.data.augment.mixing import drawn_per_example
from nfnet_jax.data.dataset import Dataset
from nfnet_jax.data.loading import check_stream, training_batches
from nfnet_jax.training.data_spec import DataFacts
from nfnet_jax.training.parallel import device_mesh
from nfnet_jax.training.setup import (
    as_trained,
    check_buildable,
    data_facts,
    load_config_dataset,
)
from nfnet_jax.training.step import make_draw_batch
from nfnet_jax.training.timeline import make_plan
from nfnet_jax.utils.errors import UserError


class Drawn(NamedTuple):
    """The first batch of a run of `dataset`: images [N, H, W, C] as its network sees
    them, targets float32 [N, classes]."""

    dataset: Dataset
    images: jax.Array
    targets: jax.Array


def draw_first_batch(config: ConfigDict, facts: DataFacts | None = None) -> Drawn:
    """The batch, classes and normalization as `facts` of a run say, or else as in the
    data.

    Raises:
      UserError: data that cannot be had, or values that do not fit it.
    """
    check_buildable(config)
    dataset = load_config_dataset(config)
    if facts:
        dataset = as_trained(dataset, facts)
    check_stream(config.data, dataset)
    check_augmentation(
        config.data.augment, dataset.image_shape, config.train.small_size
    )
    make_plan(config, len(dataset.train), jax.device_count())
    facts = data_facts(dataset, facts)
    batches = training_batches(
        dataset.train,
        config.data,
        device_mesh(),
        seed=config.seed,
        per_example=drawn_per_example(config.train),
        steps=1,
    )
    draw_batch = jax.jit(make_draw_batch(config, batches, facts, dataset.num_classes))
    with contextlib.closing(batches.iterate(0)) as host_batches:
        drawn = draw_batch(next(host_batches), jnp.zeros((), jnp.int32))
    return Drawn(dataset, *drawn)


def preview_batch(
    config: ConfigDict, most: int
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """The first images of the first batch of a run, as its network sees them.

    Returns:
      Images uint8 [N, H, W, C], their normalization undone; for each the names of its
      classes, largest share first, with the shares where there are two.

    Raises:
      UserError: data that cannot be had, or values that do not fit it.
    """
    dataset, images, targets = draw_first_batch(config)
    if dataset.image_shape[-1] not in (1, 3):
        raise UserError(
            f"{config.data.name} has images of {dataset.image_shape[-1]} channels, "
            "expected 1 or 3 to show them"
        )
    pixels = np.asarray(images[:most], np.float32) * dataset.std + dataset.mean
    pixels = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    return pixels, [
        _caption(t, dataset.class_names) for t in np.asarray(targets[:most])
    ]


def _caption(target: np.ndarray, names: tuple[str, ...]) -> tuple[str, ...]:
    order = [i for i in np.argsort(-target, kind="stable")[:2] if target[i] >= 0.005]
    if len(order) == 1:
        return (names[order[0]],)
    return tuple(f"{names[i]} {target[i]:.0%}" for i in order)
