"""Parameters by name: patterns, and which leaves are stacks of layers."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from nfnet_jax.errors import UserError, nearest

Params = Any
"""A nested dict of arrays, as Flax makes it."""

STACKED = r"(^|/)stages_\d+/blocks/"
"""Found in the paths of parameters that `nn.scan` stacks, one layer after another, in
the networks of `create_model`."""


def path_name(path: Sequence[Any]) -> str:
    """ "stages_0/blocks/branch/conv0/kernel" for a key path of jax.tree_util."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def is_stacked(path: Sequence[Any], stacked: str = STACKED) -> bool:
    """Whether axis 0 of the leaf counts layers: `stacked` is found in its path."""
    return re.search(stacked, path_name(path)) is not None


def map_layers(function: Callable, *trees: Params, stacked: str = STACKED) -> Params:
    """`function` of the leaves of `trees`; layer by layer where they are stacked."""

    def apply(path, *leaves):
        layered = is_stacked(path, stacked)
        return (jax.vmap(function) if layered else function)(*leaves)

    return jax.tree_util.tree_map_with_path(apply, *trees)


def in_classifier(params: Params) -> Params:
    """True at the leaves of the classifier, False in the body of the network."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(key.key == "classifier" for key in path), params
    )


def keep_frozen(new: Params, old: Params, frozen: Params) -> Params:
    """`new`, with the very arrays of `old` where `frozen` is True."""
    return jax.tree.map(lambda n, o, keep: o if keep else n, new, old, frozen)


def matches(params: Params, patterns: Sequence[str], key: str) -> Params:
    """True at the leaves whose path some regular expression is found in.

    `key` is the config key that the patterns come from, for the error message.

    Raises:
      UserError: a pattern is malformed or matches no parameter.
    """
    flat, treedef = jax.tree_util.tree_flatten_with_path(params)
    names = [path_name(path) for path, _ in flat]
    hits = [_matching_names(names, pattern, key) for pattern in patterns]
    found = [any(name in hit for hit in hits) for name in names]
    return jax.tree.unflatten(treedef, found)


def _matching_names(names: list[str], pattern: str, key: str) -> set[str]:
    try:
        found = {name for name in names if re.search(pattern, name)}
    except re.error as error:
        raise UserError(
            f"{key}: {pattern!r} is not a regular expression: {error}"
        ) from error
    if not found:
        parts = {part for name in names for part in name.split("/")}
        raise UserError(
            f"{key}: {pattern!r} matches no parameter of this model"
            f"{nearest(pattern, parts)}"
        )
    return found


def count(params: Params) -> int:
    """Number of scalars."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
