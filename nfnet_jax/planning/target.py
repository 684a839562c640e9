"""Accelerators that programs are compiled for without being here.

`v5e:2x2` is a slice of four TPU chips by its topology, `h100:8` a machine of so many
GPUs. Their compilers come with the extras `tpu-plan` and `gpu-plan`.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from nfnet_jax.planning.gpus import GPUS
from nfnet_jax.planning.hardware import HARDWARE, Hardware
from nfnet_jax.utils.errors import UserError, nearest

_GIB = 2**30
GPU_SHARE = 0.75
"""Part of a GPU's memory that JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says
otherwise."""
MOST_GPUS = 4096


class Chip(NamedTuple):
    """One device as JAX sees it.

    `hardware`: its name in `HARDWARE`. `memory`: bytes that programs may take.
    `clock`: Hz of a TPU, at which its matrix units have the peak of the data sheet.
    `arguments`: those of its compiler beside the topology. `cores`: devices of a chip.
    """

    hardware: str
    memory: float
    clock: float | None = None
    arguments: tuple[tuple[str, str], ...] = ()
    cores: int = 1
    sides: int = 3


CHIPS = {
    "v4": Chip("TPU v4", 30.75 * _GIB, 1.05e9, (("chip_config_name", "megacore"),)),
    "v5e": Chip("TPU v5e", 15.75 * _GIB, 1.5e9, sides=2),
    "v5p": Chip("TPU v5p", 95.74 * _GIB, 1.75e9),
    "v6e": Chip("TPU v6e", 31.25 * _GIB, 1.75e9, sides=2),
    "tpu7x": Chip("TPU7x", 94.75 * _GIB, 2.2e9, cores=2),
    "a100": Chip("A100 80GB", GPU_SHARE * GPUS["a100"]["memory"]),
    "h100": Chip("H100 SXM", GPU_SHARE * GPUS["h100"]["memory"]),
    "h200": Chip("H200", GPU_SHARE * GPUS["h200"]["memory"]),
    "b200": Chip("B200", GPU_SHARE * GPUS["b200"]["memory"]),
}
"""Devices by the names of targets. Memory of TPUs is what their compiler calls
available when a program does not fit (libtpu 0.0.42.1)."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for: a name of `CHIPS`, and a topology or a number."""

    name: str
    shape: str

    def __str__(self) -> str:
        return f"{self.name}:{self.shape}"

    @property
    def chip(self) -> Chip:
        return CHIPS[self.name]

    @property
    def hardware(self) -> Hardware:
        """Limits of one device, by the data sheet."""
        chip = HARDWARE[self.chip.hardware]
        cores = self.chip.cores
        return chip._replace(flops=chip.flops / cores, memory=chip.memory / cores)

    @property
    def is_gpu(self) -> bool:
        return self.name in GPUS

    @property
    def wheels(self) -> tuple[str, ...]:
        """Distributions of its compiler."""
        return ("jax-cuda12-pjrt",) if self.is_gpu else ("libtpu",)

    @property
    def platform(self) -> str:
        """Name that JAX lowers programs for."""
        return "cuda" if self.is_gpu else "tpu"


def parse_target(text: str) -> Target:
    """The target that a flag names, such as v5e:2x2 or h100:8; nothing is imported.

    Raises:
      UserError: no such chip, or a shape that it cannot have.
    """
    name, _, shape = text.partition(":")
    if name not in CHIPS:
        raise UserError(
            f"--target is {text!r}, expected NAME:SHAPE with one of "
            f"{', '.join(CHIPS)}{nearest(name, CHIPS)}"
        )
    if name in GPUS:
        if not re.fullmatch(r"[1-9]\d*", shape) or int(shape) > MOST_GPUS:
            raise UserError(
                f"--target is {text!r}, expected the number of GPUs, such as {name}:8"
            )
        return Target(name, shape)
    sides = CHIPS[name].sides
    valid = "x".join(["2", "2", "1"][:sides])
    if not re.fullmatch(rf"[1-9]\d*(x[1-9]\d*){{{sides - 1}}}", shape):
        raise UserError(
            f"--target is {text!r}, expected a topology of {sides} sides, such as "
            f"{name}:{valid}"
        )
    return Target(name, shape)


def prepare(target: Target) -> None:
    """Sets up this process to compile for `target`; call it before jax is imported.

    Raises:
      UserError: the wheels of its compiler are not installed.
    """
    modules = ("jax_cuda12_plugin",) if target.is_gpu else ("libtpu",)
    missing = [name for name in modules if not importlib.util.find_spec(name)]
    if missing:
        extra = "gpu-plan" if target.is_gpu else "tpu-plan"
        raise UserError(
            f"--target={target} needs a compiler that is not installed "
            f"({', '.join(missing)}): pip install 'nfnet_jax[{extra}]', or --devices=N "
            "for a rough plan by the compiler for CPUs"
        )
    settings = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if target.is_gpu:
        # There is no card to try kernels on.
        settings["XLA_FLAGS"] = (
            os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
        )
    else:
        # Without these it waits for a machine of Google, and one process excludes
        # others.
        settings |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        settings |= {"TPU_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3"}
    os.environ.update(settings)
    with quiet():
        import jax

        # The compilers of all platforms introduce themselves here.
        jax.devices()


def target_mesh(target: Target):
    """Mesh of the devices of `target`, for programs to be compiled for.

    Raises:
      UserError: its compiler knows no such topology.
    """
    from jax.experimental import topologies

    from nfnet_jax.training.parallel import device_mesh

    try:
        with quiet():
            devices = _topology(topologies, target).devices
    except Exception as error:
        raise UserError(
            f"--target is {str(target)!r}, which its compiler refuses: "
            f"{_reason(error)}; expected such as {_neighbour(target)}"
        ) from error
    return device_mesh(devices)


def _topology(topologies, target: Target):
    if target.is_gpu:
        from nfnet_jax.planning.gpus import config_text

        return topologies.get_topology_desc(
            target.name,
            "cuda",
            topology=f"1x1x{target.shape}",
            target_config=config_text(target.name),
        )
    arguments: dict = dict(target.chip.arguments)
    sides = [int(side) for side in target.shape.split("x")]
    if math.prod(sides) == 1:
        arguments["chips_per_host_bounds"] = (1, 1, 1)
    return topologies.get_topology_desc(
        platform="tpu", topology_name=str(target), **arguments
    )


def _reason(error: Exception) -> str:
    """First line of a compiler's error without its code."""
    return re.sub(r"^[A-Z_]+: ", "", str(error).partition("\n")[0])


def _neighbour(target: Target) -> str:
    """The topology of even sides that is closest to the one asked for."""
    first, second, *rest = (int(side) for side in target.shape.split("x"))
    even = [max(2, side + side % 2) for side in (first, second)]
    return f"{target.name}:{'x'.join(map(str, [*even, *rest]))}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what compilers write to stderr, past Python, from the user."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
