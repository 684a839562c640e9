"""Where arrays live, and how one step function runs on all devices.

Data parallel: every device computes the gradients of its part of the batch, and they
are averaged. With `parallel.mode` jit the compiler sees the whole step and may keep the
state in parts; with pmap each device runs a step of its own.
"""

import functools
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


class BatchView(NamedTuple):
    """How one program sees the batch.

    local_rows: rows of the batch -> those of this program.
    shard: arrays of these rows -> the same, axis 0 over the devices of the program.
    average: values of these rows -> values of the batch.
    """

    local_rows: Callable[[jax.Array], jax.Array]
    shard: Callable[..., tuple[jax.Array, ...]]
    average: Callable[[Any], Any]


def _own_rows(rows: jax.Array) -> jax.Array:
    parts = rows.reshape(jax.lax.axis_size(AXIS), -1, *rows.shape[1:])
    return parts[jax.lax.axis_index(AXIS)]


GLOBAL = BatchView(lambda rows: rows, split_batch, lambda tree: tree)
PER_DEVICE = BatchView(
    _own_rows, lambda *arrays: arrays, functools.partial(jax.lax.pmean, axis_name=AXIS)
)

Compute = Callable[..., Any]
"""(view, params, batch_stats, host_batch, step) -> values of the batch; `host_batch` as in `Batches`,
of this view alone where it is sharded."""


def compute_under_jit(compute: Compute, sharded: bool) -> Callable:
    """`compute` on all devices: run(params, batch_stats, host_batch, step) in a jitted step.

    Each has its part, except where there are batch statistics: those of BatchNorm
    are of the whole batch, so the compiler divides that program. It would divide others
    too, but gathers the batch for kernel gradients of grouped convolutions.
    """

    def run(params, batch_stats, host_batch, step):
        if jax.device_count() == 1 or jax.tree.leaves(batch_stats):
            return compute(GLOBAL, params, batch_stats, host_batch, step)
        whole, rows = PartitionSpec(), PartitionSpec(AXIS)
        return jax.shard_map(
            functools.partial(compute, PER_DEVICE),
            mesh=device_mesh(),
            in_specs=(whole, whole, rows if sharded else whole, whole),
            out_specs=whole,
            check_vma=False,
        )(params, batch_stats, host_batch, step)

    return run


def pmap_step(step: Callable, sharded: bool) -> Callable:
    """The step(state, host_batch) of one device, run on each; the state is donated.

    State and metrics go in and out as whole arrays, as they do under jit.
    """
    mesh = device_mesh()
    by_row = NamedSharding(mesh, PartitionSpec(AXIS))
    mapped = jax.pmap(
        lambda state, host_batch, index: step(state, host_batch),
        AXIS,
        in_axes=(None, 0 if sharded else None, 0),
        out_axes=None,
        donate_argnums=0,
        devices=tuple(mesh.devices.flat),
    )
    # pmap wants to map over an argument, also where no host batch is sharded.
    index = jax.jit(lambda: jax.numpy.arange(mesh.size), out_shardings=by_row)()

    @jax.jit
    def deal(host_batch):
        parts = [array.reshape(mesh.size, -1, *array.shape[1:]) for array in host_batch]
        return jax.lax.with_sharding_constraint(parts, by_row)

    def run(state, host_batch):
        results = mapped(state, deal(host_batch) if sharded else host_batch, index)
        return jax.tree.map(_of_all_processes, results)

    return run


def _of_all_processes(array: jax.Array) -> jax.Array:
    """What pmap returns is this process's only; all of them hold the same."""
    if jax.process_count() == 1:
        return array
    sharding = NamedSharding(device_mesh(), PartitionSpec())
    copies = [shard.data for shard in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, sharding, copies)
