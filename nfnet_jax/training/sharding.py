"""Where arrays live, and how one step function runs on all devices.

Data parallel: every device computes its part of each batch, and gradients are averaged
over them all. `jit` partitions a program over the whole batch; `pmap` runs one over a
part of it on each device.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def device_mesh() -> Mesh:
    """All devices on one axis, `data`, those of a process side by side."""
    devices = sorted(
        jax.devices(), key=lambda device: (device.process_index, device.id)
    )
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def split_batch(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Inside a jitted function: axis 0 split over the devices, where it divides."""
    mesh = device_mesh()
    if any(len(array) % mesh.size for array in arrays):
        return arrays
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return tuple(jax.lax.with_sharding_constraint(array, sharding) for array in arrays)


def gather(tree):
    """Inside a jitted function: a whole copy of every array on each device."""
    return jax.lax.with_sharding_constraint(
        tree, NamedSharding(device_mesh(), PartitionSpec())
    )


def place(tree, fsdp: bool):
    """Inside a jitted function: arrays as a training state keeps them.

    A whole copy on each device, or with `fsdp` a part, see `fsdp_spec`.
    """
    return jax.lax.with_sharding_constraint(tree, shardings(tree, fsdp))


def shardings(tree, fsdp: bool):
    """Of the leaves of a training state, see `place`."""
    mesh = device_mesh()

    def sharding(leaf):
        spec = fsdp_spec(leaf.shape, mesh.size) if fsdp else PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree.map(sharding, tree)


def fsdp_spec(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """Splits the largest axis that `devices` divides, the last of equals, if any."""
    divisible = [(size, axis) for axis, size in enumerate(shape) if not size % devices]
    if not divisible:
        return PartitionSpec()
    _, axis = max(divisible)
    return PartitionSpec(*[None] * axis, AXIS)


class Mode(NamedTuple):
    """How a step function of the state and a batch runs on all devices.

    own: rows of the batch -> those that one program computes.
    split: arrays of these rows -> the same, axis 0 over the devices.
    gather: parameters as the state has them -> whole ones.
    place: (tree, fsdp) -> arrays as the state has them.
    mean: values of one program -> their mean over all.
    compile: (step, divided) -> step(state, fed), the state donated; `divided` as in
      `Batches`.
    """

    own: Callable[[jax.Array], jax.Array]
    split: Callable[..., tuple[jax.Array, ...]]
    gather: Callable[[Any], Any]
    place: Callable[[Any, bool], Any]
    mean: Callable[[Any], Any]
    compile: Callable[[Callable, bool], Callable]


def _jit(step: Callable, divided: bool) -> Callable:
    return jax.jit(step, donate_argnums=0)


def _own_rows(rows: jax.Array) -> jax.Array:
    parts = rows.reshape(jax.lax.axis_size(AXIS), -1, *rows.shape[1:])
    return parts[jax.lax.axis_index(AXIS)]


def _pmap(step: Callable, divided: bool) -> Callable:
    """State and metrics go in and out as whole arrays, as they do under jit."""
    mesh = device_mesh()
    by_row = NamedSharding(mesh, PartitionSpec(AXIS))
    mapped = jax.pmap(
        lambda state, fed, index: step(state, fed),
        AXIS,
        in_axes=(None, 0 if divided else None, 0),
        out_axes=None,
        donate_argnums=0,
        devices=tuple(mesh.devices.flat),
    )
    # pmap wants to map over an argument, also where nothing that is fed is divided.
    index = jax.jit(lambda: jax.numpy.arange(mesh.size), out_shardings=by_row)()

    @jax.jit
    def deal(fed):
        parts = [array.reshape(mesh.size, -1, *array.shape[1:]) for array in fed]
        return jax.lax.with_sharding_constraint(parts, by_row)

    def run(state, fed):
        results = mapped(state, deal(fed) if divided else fed, index)
        return jax.tree.map(_of_all_processes, results)

    return run


def _of_all_processes(array: jax.Array) -> jax.Array:
    """What pmap returns is this process's only; all of them hold the same."""
    if jax.process_count() == 1:
        return array
    sharding = NamedSharding(device_mesh(), PartitionSpec())
    copies = [shard.data for shard in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, sharding, copies)


def _same(value):
    return value


MODES: dict[str, Mode] = {
    "jit": Mode(_same, split_batch, gather, place, _same, _jit),
    "pmap": Mode(
        _own_rows,
        lambda *arrays: arrays,
        _same,
        lambda tree, fsdp: tree,
        lambda tree: jax.lax.pmean(tree, AXIS),
        _pmap,
    ),
}
"""By `parallel.mode`."""
