"""Where arrays live: parameters and data on every device, batches split over them."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def device_mesh() -> Mesh:
    """All devices on one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicate(tree, mesh: Mesh):
    """A copy of every array on each device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Inside a jitted function: axis 0 split over the devices, where it divides."""
    mesh = device_mesh()
    if any(len(array) % mesh.size for array in arrays):
        return arrays
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return tuple(jax.lax.with_sharding_constraint(array, sharding) for array in arrays)
