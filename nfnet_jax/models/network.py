"""Networks of all families: stem, residual stages, head."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nfnet_jax.layers.dropout import Dropout
from nfnet_jax.layers.residual import Nonlinearity
from nfnet_jax.models.stage import Layout, MakeBranch, MakeShortcut, Stage, make_stages
from nfnet_jax.models.variant import Options
from nfnet_jax.ops.precision import (
    Examples,
    Images,
    add_bias,
    at_least_float32,
    check_floating,
)


class Spec(NamedTuple):
    """Arguments of the `create_model` that made a network; else no name."""

    name: str
    num_classes: int
    overrides: tuple[tuple[str, Any], ...] = ()


class Network(nn.Module):
    """Function images -> logits float32 [N, num_classes].

    With `features=True` -> float32 [N, F], the channel means before the classifier.
    With `return_stages=True` -> (either of these, (signal after each stage, ...)), the
    signals [N, H2, W2, C2] before any activation.

    Computes in the dtype of the images (`ops.precision` lists what is float32 for all
    images), with float32 parameters; whole numbers raise TypeError. With `train=True`,
    models with stochastic depth or dropout need the "dropout" key, and draw for each
    example by its number in `examples` (0, 1, ... by default); models with BatchNorm
    update "batch_stats" (`mutable=["batch_stats"]`).
    """

    stem: nn.Module
    stages: tuple[Stage, ...]
    head: nn.Module
    spec: Spec = Spec("", 0)

    @nn.compact
    def __call__(
        self,
        images: Images,
        *,
        train: bool = False,
        examples: Examples = None,
        features: bool = False,
        return_stages: bool = False,
    ) -> Any:
        chex.assert_rank(images, 4)
        check_floating(images.dtype)
        if train and examples is None:
            examples = jnp.arange(len(images))
        x = self.stem(images)
        signals = []
        for stage in self.stages:
            x = stage(x, examples, train=train)
            signals.append(x)
        y = self.head(x, examples, train=train, features=features)
        return (y, tuple(signals)) if return_stages else y


def rematerialized(model: Network) -> Network:
    """Returns the same network with `remat` in all its stages.

    Raises:
      ValueError: it is not made of residual stages.
    """
    if not all(isinstance(stage, Stage) for stage in model.stages):
        raise ValueError("it has no residual blocks, expected train.remat='none'")
    stages = tuple(stage.clone(remat=True) for stage in model.stages)
    return model.clone(stages=stages)


def for_platform(model: Network, platform: str) -> Network:
    """Returns the same network in the form that is fast on `platform`.

    `platform` is a name of JAX's, such as "tpu", where convolutions of few channels
    compute blocks of pixels and groups are an axis of their own. Parameters and results
    are the same on every platform.
    """
    if platform != "tpu":
        return model
    stem = _with(model.stem, pixel_blocks=True)
    return model.clone(stem=stem, stages=tuple(map(_lane_filling, model.stages)))


def _lane_filling(stage: Stage) -> Stage:
    """Stage whose branches fill the lanes of a TPU, where they can."""

    def block(module: Any) -> Any:
        return module.clone(branch=_with(module.branch, fill_lanes=True))

    if not isinstance(stage, Stage):
        return stage
    blocks = stage.blocks
    if isinstance(blocks, tuple):
        blocks = tuple(map(block, blocks))
    elif blocks:
        blocks = block(blocks)
    return stage.clone(transition=block(stage.transition), blocks=blocks)


def _with(module: nn.Module, **settings: Any) -> Any:
    """Clone with `settings`, if the module has them."""
    has = all(hasattr(module, name) for name in settings)
    return module.clone(**settings) if has else module


def normal(
    key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32, *, std: float
) -> Float[Array, "..."]:
    """Normal weights of standard deviation `std`; unlike Flax's own, can be pickled."""
    return nn.initializers.normal(std)(key, shape, dtype)


class Head(nn.Module):
    """Final convolution if any, activation, global mean, dropout, float32 classifier.

    `scalar_bias` adds the scalar `bias2` before the classifier (Fixup). With
    `features=True` the input of the classifier is returned.
    """

    num_classes: int
    activation: Nonlinearity
    drop_rate: float = 0.0
    final_conv: nn.Module | None = None
    scalar_bias: bool = False
    kernel_init: nn.initializers.Initializer = functools.partial(normal, std=0.01)

    @nn.compact
    def __call__(
        self,
        x: Images,
        examples: Examples = None,
        *,
        train: bool,
        features: bool = False,
    ) -> Float[Array, "N num_classes"]:
        x = self.final_conv(x) if self.final_conv else x
        dtype = at_least_float32(x.dtype)
        x = self.activation(x, train=train).mean((1, 2), dtype=dtype)
        x = Dropout(self.drop_rate)(x, examples, train=train)
        if self.scalar_bias:
            zeros = nn.initializers.zeros
            x = add_bias(x, self.param("bias2", zeros, (), jnp.float32))
        if features:
            return x
        dense = functools.partial(nn.Dense, dtype=x.dtype, kernel_init=self.kernel_init)
        return dense(self.num_classes, name="classifier")(x)


def preactivation_network(
    num_classes: int,
    options: Options,
    layout: Layout,
    stem: nn.Module,
    branch: MakeBranch,
    shortcut: MakeShortcut,
    *,
    activation: Nonlinearity,
    final_conv: nn.Module | None = None,
    classifier_init: nn.initializers.Initializer = Head.kernel_init,
) -> Network:
    """Network of `ResidualBlock`s, which ends in an activation and a linear layer."""
    stages = make_stages(layout, options, options.block(activation), branch, shortcut)
    rate, init = options.drop_rate, classifier_init
    head = Head(num_classes, activation, rate, final_conv, kernel_init=init)
    return Network(stem, stages, head)
