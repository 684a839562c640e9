"""A run on data and devices that need not be here: shapes instead of arrays."""

import dataclasses
import functools
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from nfnet_jax.data.augment.mixing import drawn_per_example
from nfnet_jax.data.dataset import ArraySource, Dataset, EncodedSplit, Split
from nfnet_jax.data.loading import streaming
from nfnet_jax.models.registry import find
from nfnet_jax.training.data_spec import DataSpec
from nfnet_jax.training.experiment import Experiment, find_config_dataset
from nfnet_jax.training.parallel import ROWS, WHOLE
from nfnet_jax.training.step import make_eval_step
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


@dataclasses.dataclass(frozen=True)
class AbstractRun:
    """A run of `config` on the devices of `mesh` and images as `data` has them.

    Its images arrive as from a stream; its steps can be traced and compiled only.

    Raises:
      UserError: values that do not fit together, or `parallel.mode` pmap.
    """

    config: ConfigDict
    data: DataShape
    mesh: Mesh

    def __post_init__(self):
        mode = self.config.parallel.mode
        if mode != "jit":
            raise UserError(
                f"parallel.mode is {mode!r}, expected 'jit', the only one whose step "
                "can be compiled for devices that are not there"
            )
        Experiment(self.config).check_config()
        _ = self.experiment.timeline

    @property
    def classes(self) -> int:
        model = self.config.model
        own = find(model.name).num_classes
        return model.num_classes or self.data.classes or own

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The run, whose images take no memory."""
        spec = DataSpec.of_shape(self.data.image, self.classes)
        split = self._split(self.data.examples or self.config.data.batch_size)
        dataset = Dataset(self.config.data.name, split, split, spec.class_names)
        return Experiment(self.config, dataset, given_spec=spec, given_mesh=self.mesh)

    def trace_training(self):
        """The train step and its arguments (state, host batch), traced by JAX."""
        config, experiment = self.config, self.experiment
        batches = streaming.training_batches(
            self._encoded(config.data.batch_size),
            config.data,
            self.mesh,
            seed=config.seed,
            per_example=drawn_per_example(config.train),
            steps=1,
        )
        arguments = experiment.abstract_state, self.host_batch()
        step: Any = experiment.make_train_step(batches=batches)
        return step.trace(*arguments), arguments

    def trace_evaluation(self):
        """The evaluation step and its arguments (variables, host batch), traced."""
        config, experiment = self.config, self.experiment
        size = config.data.eval_batch_size
        size = -(-size // self.mesh.size) * self.mesh.size
        batches = streaming.evaluation_batches(
            self._encoded(size), config.data, self.mesh
        )
        state = experiment.abstract_state
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        number = jax.ShapeDtypeStruct(
            (), jnp.int32, sharding=NamedSharding(self.mesh, WHOLE)
        )
        step: Any = make_eval_step(
            experiment.model,
            batches,
            experiment.data_spec,
            self.mesh,
            config.train.dtype,
        )
        arguments = variables, self._host_batch(size)
        return step.trace(*arguments, number), arguments

    def host_batch(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Images uint8 [N · d, H, W, C] and labels, d drawn for each example."""
        drawn = drawn_per_example(self.config.train)
        return self._host_batch(self.config.data.batch_size * drawn)

    def _split(self, examples: int) -> Split:
        return Split(
            np.broadcast_to(np.uint8(0), (examples, *self.data.image)),
            np.broadcast_to(np.int32(0), (examples,)),
        )

    def _encoded(self, examples: int) -> EncodedSplit:
        split, name = self._split(examples), self.config.data.name
        source = ArraySource(name, split.images, split.labels)
        return EncodedSplit(name, source, self.data.image, resize=False)

    def _host_batch(self, size: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Images uint8 [N, H, W, C] and labels int32 [N], their rows over devices."""
        rows = NamedSharding(self.mesh, ROWS)
        return (
            jax.ShapeDtypeStruct((size, *self.data.image), jnp.uint8, sharding=rows),
            jax.ShapeDtypeStruct((size,), jnp.int32, sharding=rows),
        )


def device_bytes(tree) -> int:
    """Bytes on one device of a tree whose leaves have shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
