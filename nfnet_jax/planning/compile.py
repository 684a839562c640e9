"""Compilation of a training step for absent devices: memory, operations, traffic."""

import dataclasses
import math
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from nfnet_jax.data.augment.mixing import drawn_per_example
from nfnet_jax.data.batches import Batch, Batches, batch_example_ids, every_row
from nfnet_jax.data.dataset import Dataset, Split
from nfnet_jax.models.registry import find
from nfnet_jax.ops.conv import native_operations
from nfnet_jax.planning.traffic import collective_bytes
from nfnet_jax.training.data_spec import DataSpec
from nfnet_jax.training.experiment import Experiment, find_config_dataset
from nfnet_jax.training.flops import matrix_flops
from nfnet_jax.training.parallel import ROWS
from nfnet_jax.utils.errors import UserError

CHANNELS = 3
"""Channels assumed for images that are not here."""


class DataShape(NamedTuple):
    """Shape of the data of a run: an image (H, W, C), classes, training examples.

    Unknown numbers are None. `source` names the origin of the shape, in words.
    """

    image: tuple[int, int, int]
    classes: int | None
    examples: int | None
    source: str


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


def data_shape(
    config: ConfigDict, image_shape: tuple[int, int, int] | None = None
) -> DataShape:
    """Shape of the data, which are opened but not decoded.

    Data that are not here, or whose stored `image_shape` is given, are not opened:
    images have the side of `data.image_size`, else that shape, else the side of the
    published variant and three channels.

    Raises:
      UserError: data that are here and cannot be used.
    """
    side = config.data.image_size
    if image_shape:
        height, width, channels = image_shape
        image = (side or height, side or width, channels)
        return DataShape(image, None, None, "as given")
    name, classes, examples = config.data.name, None, None
    kind, _, path = name.partition(":")
    absent = kind == "folder" and not os.path.isdir(os.path.expanduser(path))
    if not absent and (dataset := find_config_dataset(config)):
        classes, examples = dataset.num_classes or None, len(dataset.train)
        if None not in dataset.image_shape:
            return DataShape(dataset.image_shape, classes, examples, f"of {name}")
    side = side or find(config.model.name).train_size
    source = (
        f"assumed, as {name} is not here (--image_shape and --config.model.num_classes "
        "say otherwise)"
    )
    return DataShape((side, side, CHANNELS), classes, examples, source)


def forecast(
    config: ConfigDict, image_shape: tuple[int, int, int] | None = None
) -> Forecast:
    """Compiles the step of `config` for all devices of this process's JAX.

    Images and classes have the numbers of `data_shape` and arrive as from a stream, so
    that no data set is needed. The program uses the convolutions of GPU and TPU.

    Raises:
      UserError: values that do not fit together, or `parallel.mode` pmap.
    """
    if config.parallel.mode != "jit":
        raise UserError(
            f"parallel.mode is {config.parallel.mode!r}, expected 'jit', the only one "
            "whose step can be compiled for devices that are not there"
        )
    Experiment(config).check_config()
    shape = data_shape(config, image_shape)
    classes = (
        config.model.num_classes or shape.classes or find(config.model.name).num_classes
    )
    examples = shape.examples or config.data.batch_size
    experiment = _abstract_experiment(config, shape.image, classes, examples)
    state, host_batch = experiment.abstract_state, _abstract_host_batch(experiment)
    step: Any = experiment.make_train_step(batches=_abstract_batches(experiment))
    started = time.perf_counter()
    with native_operations():
        traced = step.trace(state, host_batch)
    # Machine code, which takes the longest, need not be good: it is never run.
    compiled = traced.lower().compile({"xla_backend_optimization_level": 0})
    seconds = time.perf_counter() - started
    return Forecast(
        devices=jax.device_count(),
        image_shape=shape.image,
        classes=classes,
        source=shape.source,
        parameters=device_bytes(state.params),
        optimizer=device_bytes(state.opt_state),
        average=device_bytes(state.ema_params),
        batch=device_bytes(host_batch),
        working=compiled.memory_analysis().temp_size_in_bytes,
        flops=matrix_flops(traced.jaxpr),
        collectives=collective_bytes(compiled.as_text(), jax.device_count()),
        compile_seconds=seconds,
    )


def _abstract_experiment(
    config: ConfigDict, image_shape: tuple[int, int, int], classes: int, examples: int
) -> Experiment:
    """The run of `config` on data of this shape whose pixels take no memory."""
    spec = DataSpec.of_shape(image_shape, classes)
    split = Split(
        np.broadcast_to(np.uint8(0), (examples, *image_shape)),
        np.broadcast_to(np.int32(0), (examples,)),
    )
    dataset = Dataset(config.data.name, split, split, spec.class_names)
    return Experiment(config, dataset, given_spec=spec)


def device_bytes(tree) -> int:
    """Bytes on one device of a tree whose leaves have shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _abstract_batches(experiment: Experiment) -> Batches:
    """Batches that arrive as from a stream and can be traced only."""
    size = experiment.config.data.batch_size

    def materialize(host_batch, number, local_rows=every_row) -> Batch:
        images, labels = host_batch
        return Batch(images, labels, local_rows(batch_example_ids(number, size)))

    return Batches(lambda number: (_ for _ in range(0)), materialize, sharded=True)


def _abstract_host_batch(experiment: Experiment) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes and shardings of images uint8 [N, H, W, C] and labels int32 [N]."""
    config = experiment.config
    drawn = config.data.batch_size * drawn_per_example(config.train)
    rows = NamedSharding(experiment.mesh, ROWS)
    image_shape = experiment.data_spec.image_shape
    return (
        jax.ShapeDtypeStruct((drawn, *image_shape), jnp.uint8, sharding=rows),
        jax.ShapeDtypeStruct((drawn,), jnp.int32, sharding=rows),
    )
