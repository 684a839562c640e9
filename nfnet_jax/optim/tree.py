"""Parameters by name: patterns, and which leaves are stacks of layers."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from nfnet_jax.utils.errors import UserError, nearest

Params = Any
"""A nested dict of arrays, as Flax makes it."""

STACKED = r"(^|/)stages_\d+/blocks/"
"""Found in the paths of parameters that `nn.scan` stacks, one layer after another, in
the networks of `create_model`."""
NO_PARAMS = (
    "You are using a transformation that requires the current value of parameters, but "
    "you are not passing `params` when calling `update`."
)
"""What optax says."""


def require_params(params: Params) -> None:
    """Raises ValueError where a transformation that needs them was given none."""
    if params is None:
        raise ValueError(NO_PARAMS)


def path_name(path: Sequence[Any]) -> str:
    """ "stages_0/blocks/branch/conv0/kernel" for a key path of jax.tree_util."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def layered(params: Params, stacked: str = STACKED) -> Params:
    """True at the leaves whose axis 0 counts layers: `stacked` is found in their path.

    The default must not take for a stack what another program happens to call so: there
    the axes 0 of what lies under one stack must also have one length.

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
    """`function` of the leaves of `trees`; layer by layer where they are stacked."""
    return jax.tree.map(
        lambda many, *leaves: (jax.vmap(function) if many else function)(*leaves),
        layered(trees[0]),
        *trees,
    )


def in_classifier(params: Params) -> Params:
    """True at the leaves of the classifier, False in the body of the network."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "classifier" in path_name(path).split("/"), params
    )


def keep_frozen(new: Params, old: Params, frozen: Params) -> Params:
    """`new`, with the very arrays of `old` where `frozen` is True."""
    return jax.tree.map(lambda n, o, keep: o if keep else n, new, old, frozen)


def matches(
    params: Params,
    patterns: str | Sequence[str],
    key: str,
    usual: Sequence[str] = (),
) -> Params:
    """True at the leaves whose path some regular expression is found in.

    `key` is the argument or config key that the patterns come from, for the error
    message. Those among `usual` may match nothing: not every network has such
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
    """Number of scalars."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
