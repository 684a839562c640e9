"""Training state: all that a run carries from step to step."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nfnet_jax.models.network import Network
from nfnet_jax.ops.conv import native_operations
from nfnet_jax.optim.tree import Params
from nfnet_jax.training.parallel import device_mesh, place


class TrainState(flax.struct.PyTreeNode):
    """Parameters, their average, optimizer state and counters of a run.

    `step` counts updates, `skipped` the batches that a rewind left out. `batch_stats`
    are the running statistics of a BatchNorm baseline, empty in every other network;
    the averaged parameters `ema_params` are evaluated with them too.
    """

    step: jax.Array
    skipped: jax.Array
    params: Params
    ema_params: Params
    batch_stats: Params
    opt_state: optax.OptState

    @property
    def batch_index(self) -> jax.Array:
        """Index of the batch of the next update, int32 scalar: order, augmentation and
        dropout follow from it alone."""
        return self.step + self.skipped


def init_variables(
    model: Network,
    seed: int,
    image_shape: tuple[int, int, int],
    images: jax.Array | None = None,
    fsdp: bool = False,
    mesh: Mesh | None = None,
) -> tuple[Params, Params]:
    """Returns fresh float32 parameters and batch statistics for images (H, W, C).

    `images` [N, H, W, C] are normalized training images, for networks that take some of
    their first parameters from data; the others do not look at them. With `fsdp` the
    arrays are sharded over `mesh` (by default all devices), see `place`.
    """
    mesh = mesh or device_mesh()
    if images is None:
        images = jnp.zeros((1, *image_shape))

    def init(key, images):
        with native_operations():
            variables = model.init(key, images)
        parts = variables["params"], variables.get("batch_stats", {})
        return place(mesh, parts, fsdp)

    return jax.jit(init)(jax.random.key(seed), images)


def init_state(
    params: Params,
    batch_stats: Params,
    optimizer: optax.GradientTransformation,
    fsdp: bool = False,
    mesh: Mesh | None = None,
) -> TrainState:
    """Returns the state before the first update.

    With `fsdp` it is sharded over `mesh` (by default all devices), see `place`.
    """
    mesh = mesh or device_mesh()

    @jax.jit
    def init(params, batch_stats):
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            params=params,
            ema_params=jax.tree.map(jnp.copy, params),
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
        )
        return place(mesh, state, fsdp)

    return init(params, batch_stats)
