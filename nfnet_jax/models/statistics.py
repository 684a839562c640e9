"""Statistics of a model: parameters, multiply-adds, published accuracy."""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from nfnet_jax.layers.affine import Affine
from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import create_model, find
from nfnet_jax.ops.conv import native_operations

Params = Any
"""A nested dict of arrays, as Flax makes it."""


class Counts(NamedTuple):
    """Scalars in all parameters, and multiply-adds of one image."""

    parameters: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Size, cost and published accuracy of a model.

    `parameters`: with `num_classes` logits, running statistics not counted.
    `multiply_adds`: of one image of `test_size`; see `multiply_adds`. `train_size`,
    `test_size`: sides of the square images. `top1`, `top5`: published ImageNet
    accuracies in percent at `test_size`, None where there are none.
    """

    name: str
    num_classes: int
    parameters: int
    multiply_adds: int
    train_size: int
    test_size: int
    top1: float | None
    top5: float | None


def model_info(name: str) -> ModelInfo:
    """Returns the facts about `name`, any name that `create_model` takes.

    The network is traced only.

    Raises:
      ValueError: unknown name.
    """
    variant = find(name)
    classes, size = variant.num_classes, variant.test_size
    found = counts(create_model(name, classes), (size, size, 3))
    sizes, accuracies = (variant.train_size, size), (variant.top1, variant.top5)
    return ModelInfo(name, classes, *found, *sizes, *accuracies)


def counts(model: Network, image_shape: tuple[int, int, int]) -> Counts:
    """Counts parameters, and `multiply_adds`, by tracing alone."""
    sizes, positions = _trace(model, image_shape)
    kernels = {path: size for path, size in sizes.items() if path[-1] == "kernel"}
    products = sum(size * positions[path[:-1]] for path, size in kernels.items())
    return Counts(sum(sizes.values()), products)


def multiply_adds(model: Network, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of one image [H, W, C] in all convolutions and linear layers.

    Σ over kernels: scalars in the kernel × positions of its output. Padding counts as
    pixels do; bias, activations and weight standardization do not count.
    """
    return counts(model, image_shape).multiply_adds


def training_multiply_adds(
    model: Network, image_shape: tuple[int, int, int], frozen: Params
) -> int:
    """Multiply-adds of one image [H, W, C], forward and backward.

    Three times those forward: the gradients of a layer's input and of its kernel take
    as many each. Where `frozen` (a tree like the parameters) is True, there is none of
    the kernel, nor of the input if nothing trained comes before.
    """
    sizes, positions = _trace(model, image_shape)
    untrained = traverse_util.flatten_dict(frozen)
    total, trained_before = 0, False
    for module, places in positions.items():
        kernel = (*module, "kernel")
        if kernel in sizes:
            passes = 1 + (not untrained[kernel])
            passes += trained_before or not untrained[kernel]
            total += passes * sizes[kernel] * places
        own = [path for path in sizes if path[:-1] == module]
        trained_before |= not all(untrained[path] for path in own)
    return total


def _trace(
    model: Network, image_shape: tuple[int, int, int]
) -> tuple[dict[tuple[str, ...], int], dict[tuple[str, ...], int]]:
    """Sizes of all parameters, and output positions of all modules as they run."""
    positions: dict[tuple[str, ...], int] = {}

    def note_output(next_fun, args, kwargs, context):
        returned = next_fun(*args, **kwargs)
        y = returned.x if isinstance(returned, Affine) else returned
        if context.method_name == "__call__" and isinstance(y, jax.Array):
            positions[context.module.path] = math.prod(y.shape[1:-1])
        return returned

    def init(key, images):
        with nn.intercept_methods(note_output), native_operations():
            return model.init(key, images)["params"]

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    params = traverse_util.flatten_dict(jax.eval_shape(init, jax.random.key(0), images))
    return {path: math.prod(leaf.shape) for path, leaf in params.items()}, positions
