"""Gradient norms relative to weight norms, layer by layer: where a run diverges."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nfnet_jax.optim.tree import Params, is_stacked, map_layers, path_name

LEAST_NORM = 1e-3
"""Assumed of kernels that start at 0."""


def gradient_ratios(grads: Params, params: Params) -> jax.Array:
    """‖G‖ / max(‖W‖, 1e-3) of every kernel, float32 [layers]; see `layer_names`."""
    return kernel_norms(grads) / jnp.maximum(kernel_norms(params), LEAST_NORM)


def kernel_norms(tree: Params) -> jax.Array:
    """Norms of all kernels, or of their gradients, [layers], as in `layer_names`."""
    norms = jax.tree.leaves(map_layers(jnp.linalg.norm, tree))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    kernels = [
        jnp.ravel(norm)
        for norm, (path, leaf) in zip(norms, leaves, strict=True)
        if _is_kernel(path, leaf)
    ]
    return jnp.concatenate(kernels)


def layer_names(params: Params) -> list[str]:
    """Paths of the kernels in the order of `gradient_ratios`.

    Layer i of a stack, the one in block i + 2 of its stage, has `[i]` after its path.
    """
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if _is_kernel(path, leaf):
            name = path_name(path)
            stack = range(leaf.shape[0])
            names += [f"{name}[{i}]" for i in stack] if is_stacked(path) else [name]
    return names


def _is_kernel(path: Sequence[Any], leaf: jax.Array) -> bool:
    return leaf.ndim - is_stacked(path) > 1
