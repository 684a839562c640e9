"""Parameters by name: patterns, stacks of layers, norms layer by layer."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfnet_jax.utils.errors import UserError, nearest

Params = Any
"""A nested dict of arrays, as Flax makes it."""

STACKED = r"(^|/)stages_\d+/blocks/"
"""Expression found in the paths of parameters that `nn.scan` stacks, one layer after
another, in the networks of `create_model`."""
NO_PARAMS = (
    "You are using a transformation that requires the current value of parameters, but "
    "you are not passing `params` when calling `update`."
)
"""Message of optax."""


def require_params(params: Params) -> None:
    """Raises ValueError if `params`, which a transformation needs, is None."""
    if params is None:
        raise ValueError(NO_PARAMS)


def path_name(path: Sequence[Any]) -> str:
    """Joins a key path of jax.tree_util: "stages_0/blocks/branch/conv0/kernel"."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def layered(params: Params, stacked: str = STACKED) -> Params:
    """Mask of the leaves whose axis 0 counts layers: `stacked` is found in their path.

    The default pattern also requires one length of axis 0 for all leaves of a stack:
    another program may use the same names for something else.

    Raises:
      UserError: another expression is malformed or found in no path.
    """
    if stacked != STACKED:
        return matches(params, stacked, "stacked")
    flat, treedef = jax.tree_util.tree_flatten_with_path(params)
    found = [re.match(rf".*?{STACKED}", path_name(path)) for path, _ in flat]
    stacks = [match[0] if match else "" for match in found]
    lengths: dict[str, set[tuple[int, ...]]] = {"": set()}
    for stack, (_, leaf) in zip(stacks, flat, strict=True):
        lengths.setdefault(stack, set()).add(leaf.shape[:1] if stack else ())
    return jax.tree.unflatten(
        treedef, [len(lengths[s]) == 1 and () not in lengths[s] for s in stacks]
    )


def map_layers(function: Callable, *trees: Params) -> Params:
    """Maps `function` over the leaves of `trees`, layer by layer in stacks."""
    return jax.tree.map(
        lambda many, *leaves: (jax.vmap(function) if many else function)(*leaves),
        layered(trees[0]),
        *trees,
    )


def in_classifier(params: Params) -> Params:
    """Mask of the leaves of the classifier."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "classifier" in path_name(path).split("/"), params
    )


def keep_frozen(new: Params, old: Params, frozen: Params) -> Params:
    """Returns `new`, with the very arrays of `old` where `frozen` is True."""
    return jax.tree.map(lambda n, o, keep: o if keep else n, new, old, frozen)


def matches(
    params: Params,
    patterns: str | Sequence[str],
    key: str,
    usual: Sequence[str] = (),
) -> Params:
    """Mask of the leaves whose path some regular expression is found in.

    `key` is the argument or config key that the patterns come from, for the error
    message. Patterns of `usual` may match nothing: not every network has such
    parameters.

    Raises:
      UserError: another pattern matches no parameter, or a pattern is malformed.
    """
    if isinstance(patterns, str):
        patterns = (patterns,)
    flat, treedef = jax.tree_util.tree_flatten_with_path(params)
    names = [path_name(path) for path, _ in flat]
    hits = [_matching_names(names, p, key, p in usual) for p in patterns]
    found = [any(name in hit for hit in hits) for name in names]
    return jax.tree.unflatten(treedef, found)


def _matching_names(
    names: list[str], pattern: str, key: str, may_be_none: bool
) -> set[str]:
    try:
        found = {name for name in names if re.search(pattern, name)}
    except re.error as error:
        raise UserError(
            f"{key}: {pattern!r} is not a regular expression: {error}"
        ) from error
    if not found and not may_be_none:
        parts = {part for name in names for part in name.split("/")}
        raise UserError(
            f"{key}: {pattern!r} matches no parameter of this model"
            f"{nearest(pattern, parts)}"
        )
    return found


def count(params: Params) -> int:
    """Number of scalars in all parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


LEAST_NORM = 1e-3
"""Least norm assumed of a kernel, for those that start at 0."""


def gradient_ratios(grads: Params, params: Params) -> Float[Array, " layers"]:
    """Ratio ‖G‖ / max(‖W‖, 1e-3) of every kernel, in the order of `layer_names`.

    It shows the layer in which a run diverges.
    """
    return kernel_norms(grads) / jnp.maximum(kernel_norms(params), LEAST_NORM)


def kernel_norms(tree: Params) -> Float[Array, " layers"]:
    """Norms of all kernels, or of their gradients, in the order of `layer_names`."""
    norms = jax.tree.leaves(map_layers(jnp.linalg.norm, tree))
    rows = zip(norms, _named_leaves(tree), strict=True)
    return jnp.concatenate(
        [jnp.ravel(norm) for norm, (_, leaf, many) in rows if leaf.ndim - many > 1]
    )


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
    """Yields the path of every leaf, the leaf, and True if it is a stack of layers."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    stacks = jax.tree.leaves(layered(tree))
    for (path, leaf), many in zip(leaves, stacks, strict=True):
        yield path_name(path), leaf, many
