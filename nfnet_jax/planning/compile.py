"""A rough plan by the compiler for CPUs, where that of the target cannot be had."""

import dataclasses
import time

from ml_collections import ConfigDict

from nfnet_jax.ops.conv import native_operations
from nfnet_jax.planning.abstract import AbstractRun, data_shape, device_bytes
from nfnet_jax.planning.traffic import collective_bytes
from nfnet_jax.training.flops import matrix_flops
from nfnet_jax.training.parallel import device_mesh


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Needs of one training step. Bytes are per device.

    `source`: origin of `image_shape`, in words. `parameters`, `optimizer`, `average`:
    bytes of the state. `batch`: bytes of a host batch. `working`: bytes that XLA
    allocates within the step, for activations and gradients above all. `flops`:
    operations of convolutions and matrix products on all devices together, two per
    multiply-add. `collectives`: see `collective_bytes`.
    """

    devices: int
    image_shape: tuple[int, int, int]
    classes: int
    source: str
    parameters: int
    optimizer: int
    average: int
    batch: int
    working: int
    flops: int
    collectives: dict[str, float]
    compile_seconds: float

    @property
    def memory(self) -> int:
        """Sum of all bytes per device."""
        state = self.parameters + self.optimizer + self.average
        return state + self.batch + self.working


def forecast(
    config: ConfigDict, image_shape: tuple[int, int, int] | None = None
) -> Forecast:
    """Compiles the step of `config` for all devices of this process's JAX.

    Images and classes have the numbers of `data_shape` and arrive as from a stream, so
    that no data set is needed. The program uses the convolutions of GPU and TPU.

    Raises:
      UserError: values that do not fit together, or `parallel.mode` pmap.
    """
    run = AbstractRun(config, data_shape(config, image_shape), device_mesh())
    started = time.perf_counter()
    with native_operations():
        traced, (state, host_batch) = run.trace_training()
    # Machine code, which takes the longest, need not be good: it is never run.
    compiled = traced.lower().compile({"xla_backend_optimization_level": 0})
    seconds = time.perf_counter() - started
    devices = run.mesh.size
    return Forecast(
        devices=devices,
        image_shape=run.data.image,
        classes=run.classes,
        source=run.data.source,
        parameters=device_bytes(state.params),
        optimizer=device_bytes(state.opt_state),
        average=device_bytes(state.ema_params),
        batch=device_bytes(host_batch),
        working=compiled.memory_analysis().temp_size_in_bytes,
        flops=matrix_flops(traced.jaxpr),
        collectives=collective_bytes(compiled.as_text(), devices),
        compile_seconds=seconds,
    )
