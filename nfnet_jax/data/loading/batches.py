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

    iterate: `iterate(number)` yields the host side of that batch and of those after it;
      close it when done. Training batches come without end or to the last step,
      evaluation batches in one pass.
    materialize: `materialize(host_batch, number)`, called inside the compiled step,
      returns the `Batch`. A third argument, `local_rows`, selects rows of the batch;
      a sharded `host_batch` holds these rows alone.
    sharded: whether axis 0 of a host batch counts examples of the batch and is split
      over the devices; otherwise each device has all of it.
    """

    iterate: Callable[[int], Generator[Any, None, None]]
    materialize: Callable[..., Batch]
    sharded: bool = False


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
