"""Weights to start from, and their merge into the fresh parameters of a run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from nfnet_jax.data.class_names import match_classes
from nfnet_jax.optim.tree import Params
from nfnet_jax.utils.errors import UserError


# eq=False: arrays have no single truth value, so == would raise.
@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """Network weights with the normalization and classes that they were trained on.

    `params` and `batch_stats` (of BatchNorm) are named as the model names them; `mean`
    and `std`, one a channel, are of the pixels, scaled to [0, 1], that they were
    trained on. `network` is the name and the options of their network. `class_names`
    are those of the classifier's columns; without them the classifier is not taken.
    """

    params: Params
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_stats: Params = dataclasses.field(default_factory=dict)
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    class_names: Sequence[str] = ()


def merge_pretrained(
    pretrained: Pretrained,
    params: Params,
    batch_stats: Params,
    source: str,
    class_names: Sequence[str],
) -> tuple[Params, Params, str]:
    """Replaces fresh parameters and statistics leaf by leaf by pretrained ones.

    The classifier stays new unless it is of the same classes as `class_names`, in whose
    order it is brought, and of as many logits. `source` names the weights. The third
    result is a line that names what was taken.

    Raises:
      UserError: a leaf outside of the classifier is missing, misshapen or left over.
    """
    own, given = flatten_dict(params), flatten_dict(pretrained.params)
    head = {path for path in own.keys() | given.keys() if "classifier" in path}
    try:
        columns = _columns(pretrained, head, own, given, class_names)
        why = ""
        given |= {path: jnp.take(given[path], columns, axis=-1) for path in head}
    except ValueError as error:
        why = f": {error}"
        given = {path: leaf for path, leaf in given.items() if path not in head}
        given |= {path: leaf for path, leaf in own.items() if path in head}
    stats, given_stats = flatten_dict(batch_stats), flatten_dict(pretrained.batch_stats)
    _check(own | stats, given | given_stats, source)
    taken = len(own) + len(stats) - (len(head & own.keys()) if why else 0)
    return (
        _take(given, own),
        _take(given_stats, stats),
        f"starting from {source}: {taken} arrays; the classifier is "
        f"{f'new{why}' if why else 'theirs'}\n",
    )


def _columns(
    pretrained: Pretrained,
    head: set[tuple[str, ...]],
    own: Mapping,
    given: Mapping,
    class_names: Sequence[str],
) -> np.ndarray:
    """Columns of the `given` classifier, int [K], in the order of the new one.

    Raises:
      ValueError: the classifier cannot be taken, with the reason.
    """
    if not pretrained.class_names:
        raise ValueError("what their classes are called is not known")
    places = match_classes(class_names, pretrained.class_names)
    for path in sorted(head):
        needed, there = (path in tree and tree[path].shape for tree in (own, given))
        if needed != there:
            name = "/".join(path)
            raise ValueError(f"{name} is {there or 'missing'}, expected {needed}")
    # Logits without a class stay behind those with one.
    (logits,) = {given[path].shape[-1] for path in head}
    return np.asarray([*places, *range(len(places), logits)])


def _check(own: Mapping, given: Mapping, source: str) -> None:
    problems = []
    for path in sorted(own.keys() | given.keys()):
        name = "/".join(path)
        if path not in given:
            problems.append(f"{name} is missing")
        elif path not in own:
            problems.append(f"{name} is there, but not in this model")
        elif own[path].shape != given[path].shape:
            problems.append(
                f"{name} has shape {given[path].shape}, expected {own[path].shape}"
            )
    if problems:
        others = f" (and {len(problems) - 1} more such)" if problems[1:] else ""
        raise UserError(
            f"model.weights: {source} does not fit the model: {problems[0]}{others}"
        )


def _take(given: Mapping, own: Mapping) -> Params:
    # Copied, because a training step gives the memory of its arguments away.
    leaves = {path: jnp.array(given[path], leaf.dtype) for path, leaf in own.items()}
    return unflatten_dict(leaves)
