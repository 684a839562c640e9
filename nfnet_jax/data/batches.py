"""Batches of a split, by index, and the random keys of a run.

The names of indices are explained in `nfnet_jax.data.loading`.
"""

import dataclasses
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Batch(NamedTuple):
    """Examples on the devices, cropped but not normalized.

    images: uint8 [N · d, H, W, C] with d images drawn for each example, see `mixing`.
    labels: int32 [N · d]; -1 where there is no example, as after the last one of an
      evaluation.
    example_ids: uint32 [N]; randomness is keyed by them.
    """

    images: jax.Array
    labels: jax.Array
    example_ids: jax.Array


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches of a split, on the host and inside the compiled step.

    iterate: `iterate(i)` yields the host side of batches i, i + 1, … (a closable
      generator). Training batches come without end or to the last step, evaluation
      batches in one pass.
    materialize: `materialize(host_batch, i)`, called inside jit, returns the `Batch`. A
      third argument, `local_rows`, selects rows of the batch; a sharded `host_batch`
      holds these rows alone.
    sharded: True if axis 0 of a host batch counts examples and is split over the
      devices, False if each device has all of it.
    """

    iterate: Callable[[int], Generator[Any, None, None]]
    materialize: Callable[..., Batch]
    sharded: bool = False


class Keys(NamedTuple):
    """Random keys of a run, one for each use."""

    order: jax.Array
    crop: jax.Array
    augment: jax.Array
    model: jax.Array


def run_keys(seed: int) -> Keys:
    """Keys of the run with `config.seed`."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))


def every_row(rows: jax.Array) -> jax.Array:
    """The default of `local_rows`: all rows of a batch."""
    return rows


def batch_example_ids(batch_index: jax.Array, size: int) -> jax.Array:
    """Ids of the examples of a batch, uint32 [size]."""
    first = jnp.asarray(batch_index).astype(jnp.uint32) * size
    return first + jnp.arange(size, dtype=jnp.uint32)


def example_keys(key: jax.Array, ids: jax.Array) -> jax.Array:
    """A key for each id [N], whatever batch or device it falls on."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, ids)
