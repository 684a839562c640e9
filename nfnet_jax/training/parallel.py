"""Data parallelism: where arrays live, and one step function on all devices.

Every device computes the gradients of its part of the batch, and they are averaged.
With `parallel.mode` jit the compiler sees the whole step and may keep the state in
parts; with pmap each device runs a step of its own.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
WHOLE, ROWS = PartitionSpec(), PartitionSpec(AXIS)
"""Specs of arrays that every device has a copy of, and of arrays split along axis 0."""


def device_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices, by default all, on one axis `data`, those of a process side by side."""
    devices = sorted(
        devices or jax.devices(), key=lambda device: (device.process_index, device.id)
    )
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def platform(mesh: Mesh) -> str:
    """Platform of the devices, such as "cpu", whether or not they are here."""
    return mesh.devices.flat[0].platform


def split_batch(mesh: Mesh, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Inside a jitted function: axis 0 split over the devices, where it divides."""
    if any(len(array) % mesh.size for array in arrays):
        return arrays
    sharding = NamedSharding(mesh, ROWS)
    return tuple(jax.lax.with_sharding_constraint(array, sharding) for array in arrays)


def gather(mesh: Mesh, tree):
    """Inside a jitted function: a whole copy of every array on each device."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, WHOLE))


def place(mesh: Mesh, tree, fsdp: bool):
    """Inside a jitted function: arrays as a training state keeps them.

    A whole copy on each device, or with `fsdp` a part, see `fsdp_spec`.
    """
    return jax.lax.with_sharding_constraint(tree, shardings(mesh, tree, fsdp))


def shardings(mesh: Mesh, tree, fsdp: bool):
    """Shardings of the leaves of a training state, see `place`."""

    def sharding(leaf):
        spec = fsdp_spec(leaf.shape, mesh.size) if fsdp else WHOLE
        return NamedSharding(mesh, spec)

    return jax.tree.map(sharding, tree)


def on_rows(mesh: Mesh, function: Callable) -> Callable:
    """Inside a jitted function: `function(whole, rows)` by each device for its rows.

    The compiler would divide it too, but gathers signals for grouped convolutions. Rows
    that do not divide are left to it.
    """

    def apply(whole, rows: jax.Array):
        if mesh.size == 1 or len(rows) % mesh.size:
            return function(whole, rows)
        divided = jax.shard_map(
            function, mesh=mesh, in_specs=(WHOLE, ROWS), out_specs=ROWS, check_vma=False
        )
        return divided(whole, rows)

    return apply


def fsdp_spec(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """Splits the largest axis that `devices` divides, the last of equals, if any."""
    divisible = [(size, axis) for axis, size in enumerate(shape) if not size % devices]
    if not divisible:
        return PartitionSpec()
    _, axis = max(divisible)
    return PartitionSpec(*[None] * axis, AXIS)


class BatchView(NamedTuple):
    """One program's view of the batch.

    local_rows: rows of the batch -> those of this program.
    shard: arrays of these rows -> the same, axis 0 over the devices of the program.
    average: means over these rows -> means over the batch.
    """

    local_rows: Callable[[jax.Array], jax.Array]
    shard: Callable[..., tuple[jax.Array, ...]]
    average: Callable[[Any], Any]


def _own_rows(rows: jax.Array) -> jax.Array:
    parts = rows.reshape(jax.lax.axis_size(AXIS), -1, *rows.shape[1:])
    return parts[jax.lax.axis_index(AXIS)]


def whole_batch(mesh: Mesh) -> BatchView:
    """View of the one program that computes for all devices of `mesh`."""
    split = functools.partial(split_batch, mesh)
    return BatchView(lambda rows: rows, split, lambda tree: tree)


PER_DEVICE = BatchView(
    _own_rows, lambda *arrays: arrays, functools.partial(jax.lax.pmean, axis_name=AXIS)
)


# Three functions of `training.step` make a compiled step, their options given:
#   draw_batch(host_batch, batch_index, view=...) -> batch
#   batch_gradients(params, batch_stats, batch, view=...) -> (values, gradients)
#   step(state, batch, batch_gradients) -> (state, metrics)


def jit_step(
    mesh: Mesh,
    draw_batch: Callable,
    batch_gradients: Callable,
    step: Callable,
    *,
    sharded: bool,
    fsdp: bool,
    options: dict[str, str] | None,
) -> Callable:
    """Compiles `train_step(state, host_batch) -> (state, metrics)` for the devices of
    `mesh`.

    The state is donated. `sharded`: axis 0 of a host batch is split over the devices.

    Each device computes its part, except where there are batch statistics: those of
    BatchNorm are of the whole batch, so the compiler divides that program. It would
    divide others too, but gathers the batch for kernel gradients of grouped
    convolutions.
    """

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=options)
    def train_step(state, host_batch):
        one_program = mesh.size == 1 or jax.tree.leaves(state.batch_stats)

        def divide(function, in_specs, out_specs):
            if one_program:
                return functools.partial(function, view=whole_batch(mesh))
            return jax.shard_map(
                functools.partial(function, view=PER_DEVICE),
                mesh=mesh,
                in_specs=in_specs,
                out_specs=out_specs,
                check_vma=False,
            )

        draw_rows = divide(draw_batch, (ROWS if sharded else WHOLE, WHOLE), ROWS)
        sharded_gradients = divide(batch_gradients, (WHOLE, WHOLE, ROWS), WHOLE)

        def all_gradients(params, batch_stats, batch):
            values, grads = sharded_gradients(gather(mesh, params), batch_stats, batch)
            return values, place(mesh, grads, fsdp)

        batch = draw_rows(host_batch, state.batch_index)
        state, metrics = step(state, batch, all_gradients)
        return place(mesh, state, fsdp), gather(mesh, metrics)

    return train_step


def pmap_step(
    mesh: Mesh,
    draw_batch: Callable,
    batch_gradients: Callable,
    step: Callable,
    *,
    sharded: bool,
) -> Callable:
    """Compiles `train_step(state, host_batch) -> (state, metrics)` for each device.

    As `jit_step` otherwise: state and metrics go in and out as whole arrays.
    """
    by_row = NamedSharding(mesh, ROWS)

    def device_step(state, host_batch, index):
        batch = draw_batch(host_batch, state.batch_index, view=PER_DEVICE)
        return step(state, batch, functools.partial(batch_gradients, view=PER_DEVICE))

    mapped = jax.pmap(
        device_step,
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
        return jax.tree.map(functools.partial(_of_all_processes, mesh), results)

    return run


def compiler_options(mesh: Mesh, remat: str) -> dict[str, str] | None:
    """Non-default XLA options for a train step with `train.remat`, or None.

    On CPUs XLA drops the barriers between a value and its recomputation, then merges
    the two, and rematerialization would save nothing outside of loops.
    """
    if remat == "block" and platform(mesh) == "cpu":
        return {"xla_disable_hlo_passes": "cse_barrier_expander"}
    return None


def _of_all_processes(mesh: Mesh, array: jax.Array) -> jax.Array:
    """A result of pmap, which is this process's only, as an array of all processes."""
    if jax.process_count() == 1:
        return array
    sharding = NamedSharding(mesh, WHOLE)
    copies = [shard.data for shard in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, sharding, copies)
