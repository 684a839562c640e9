"""What both loaders give: one split, batch by batch.

`memory` keeps the split on the devices and draws from it inside the compiled step,
`stream` decodes images in worker processes while the step runs.
"""

import dataclasses
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Batch(NamedTuple):
    """Examples on the devices, cropped but not normalized.

    images: uint8 [N · d, H, W, C], d images drawn for each of the batch, see `mixing`.
    labels: int32 [N · d]; -1 where there is no example, as after the last one of an
      evaluation.
    positions: of the batch, uint32 [N], counted from the start of training; randomness
      is keyed by them.
    """

    images: jax.Array
    labels: jax.Array
    positions: jax.Array


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a split, by number.

    feed: `feed(number)` generates what the compiled step gets, from that batch on;
      close it when done. For training without end or to the last step, for evaluation
      one pass.
    take: `take(fed, number)`, inside the compiled step -> `Batch`. With a third
      argument, `own(rows)` of the batch, and a `fed` of them alone where it is divided.
    divided: whether axis 0 of what is fed counts examples of the batch and is split
      over the devices; else each of them has all of it.
    """

    feed: Callable[[int], Generator[Any, None, None]]
    take: Callable[..., Batch]
    divided: bool = False


class Keys(NamedTuple):
    """Of what is random in a run."""

    order: jax.Array
    crop: jax.Array
    augment: jax.Array
    model: jax.Array


def run_keys(seed: int) -> Keys:
    """The keys of the run `config.seed`."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))


def every_row(rows: jax.Array) -> jax.Array:
    """All of them."""
    return rows


def batch_positions(number: jax.Array, size: int) -> jax.Array:
    """Positions of the batch `number`, uint32 [size]."""
    first = jnp.asarray(number).astype(jnp.uint32) * size
    return first + jnp.arange(size, dtype=jnp.uint32)


def example_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """A key for each position, whatever batch or device it falls on."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, positions)
