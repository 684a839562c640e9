"""Gradient norms relative to weight norms, layer by layer: where a run diverges."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from nfnet_jax.optim.tree import Params, layered, map_layers, path_name

LEAST_NORM = 1e-3
"""Assumed of kernels that start at 0."""


def gradient_ratios(grads: Params, params: Params) -> jax.Array:
    """‖G‖ / max(‖W‖, 1e-3) of every kernel, float32 [layers]; see `layer_names`."""
    return kernel_norms(grads) / jnp.maximum(kernel_norms(params), LEAST_NORM)


def kernel_norms(tree: Params) -> jax.Array:
    """Norms of all kernels, or of their gradients, [layers], as in `layer_names`."""
    norms = jax.tree.leaves(map_layers(jnp.linalg.norm, tree))
    leaves = _named_leaves(tree)
    kernels = [
        jnp.ravel(norm)
        for norm, (_, leaf, many) in zip(norms, leaves, strict=True)
        if leaf.ndim - many > 1
    ]
    return jnp.concatenate(kernels)


def layer_names(params: Params) -> list[str]:
    """Paths of the kernels in the order of `gradient_ratios`.

    Layer i of a stack, the one in block i + 2 of its stage, has `[i]` after its path.
    """
    names = []
    for name, leaf, many in _named_leaves(params):
        if leaf.ndim - many > 1:
            stack = range(leaf.shape[0])
            names += [f"{name}[{i}]" for i in stack] if many else [name]
    return names


def _named_leaves(tree: Params) -> Iterator[tuple[str, jax.Array, bool]]:
    """The path of every leaf, the leaf, and whether it is a stack of layers."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    stacks = jax.tree.leaves(layered(tree))
    for (path, leaf), many in zip(leaves, stacks, strict=True):
        yield path_name(path), leaf, many
