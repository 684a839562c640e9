"""Gradient norms of every layer, and their ratios to the norms of the weights."""

import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from nfnet_jax.analysis.measure import Signal
from nfnet_jax.optim.tree import gradient_ratios, kernel_norms, layer_names


class LayerGradient(NamedTuple):
    """‖G‖ of a kernel, and its ratio ‖G‖ / max(‖W‖, 1e-3)."""

    name: str
    norm: float
    ratio: float


def measure_gradients(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    **arguments: Any,
) -> tuple[LayerGradient, ...]:
    """Gradients of the mean cross entropy for `labels` [N] of images [N, H, W, C].

    `arguments` go to the model. Kernels below a module called `blocks` count as stacks
    of layers.
    """
    rest = {name: variables[name] for name in variables.keys() - {"params", "signal"}}

    def loss(params):
        logits, _ = model.apply(
            {"params": params, **rest},
            images,
            mutable=list(rest),
            rngs={"dropout": jax.random.key(0)},
            **arguments,
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def norms_and_ratios(params):
        grads = jax.grad(loss)(params)
        return kernel_norms(grads), gradient_ratios(grads, params)

    norms, ratios = map(np.asarray, norms_and_ratios(variables["params"]))
    names = map(_name, layer_names(variables["params"]))
    return tuple(map(LayerGradient, names, norms.tolist(), ratios.tolist()))


def in_order(
    gradients: tuple[LayerGradient, ...], signal: Signal
) -> tuple[LayerGradient, ...]:
    """Sorts `gradients` as the signal passes the layers, convolutions first."""
    place = {layer.name: i for i, layer in enumerate(signal.layers)}

    def key(gradient: LayerGradient) -> int:
        return place.get(gradient.name.rpartition("/")[0], len(place))

    return tuple(sorted(gradients, key=key))


def _name(name: str) -> str:
    """Turns "stages_0/blocks/conv0/kernel[1]" to "stages_0/blocks[1]/conv0/kernel"."""
    return re.sub(r"\bblocks/(.*)(\[\d+\])$", r"blocks\2/\1", name)
