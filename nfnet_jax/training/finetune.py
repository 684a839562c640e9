"""Starting from weights: what is taken, what is new, and what a resumed run recalls."""

import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from nfnet_jax.data.class_names import match_classes
from nfnet_jax.optim.tree import Params
from nfnet_jax.training.checkpoint.manager import Checkpoints
from nfnet_jax.training.workdir import read_json, write_json
from nfnet_jax.utils.errors import UserError


# eq=False: arrays have no single truth value, so == would raise.
@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights to start from.

    `params` and `batch_stats` (of BatchNorm) are named as the model names them; `mean`
    and `std`, one a channel, are of the pixels, scaled to [0, 1], that they were
    trained on. `network` is the name and the options of their network. `class_names`
    are those of the classifier's columns; where nobody knows them, it is not taken.
    """

    params: Params
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_stats: Params = dataclasses.field(default_factory=dict)
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    class_names: Sequence[str] = ()


def start_from(
    pretrained: Pretrained,
    params: Params,
    batch_stats: Params,
    source: str,
    class_names: Sequence[str],
) -> tuple[Params, Params, str]:
    """Fresh parameters and statistics, replaced leaf by leaf by pretrained ones.

    The classifier stays new unless it is of the same classes as `class_names`, in whose
    order it is brought, and of as many logits. `source` names the weights. The third
    result says in a line what was taken.

    Raises:
      UserError: a leaf outside of the classifier is missing, misshapen or left over.
    """
    own, given = _flat(params), _flat(pretrained.params)
    head = {path for path in own.keys() | given.keys() if "classifier" in path}
    try:
        columns = _columns(pretrained, head, own, given, class_names)
        why = ""
        given |= {path: jnp.take(given[path], columns, axis=-1) for path in head}
    except ValueError as error:
        why = f": {error}"
        given = {path: leaf for path, leaf in given.items() if path not in head}
        given |= {path: leaf for path, leaf in own.items() if path in head}
    stats, given_stats = _flat(batch_stats), _flat(pretrained.batch_stats)
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
    """For each column of the new classifier, which of the `head` it is in the `given`.

    Raises:
      ValueError: why the classifier cannot be taken.
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


def _flat(tree: Params) -> dict[tuple[str, ...], jax.Array]:
    return traverse_util.flatten_dict(tree)


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
    return traverse_util.unflatten_dict(leaves)


# --- The config of a run that starts from weights -----------------------------------


def settle_model(
    config: ConfigDict, workdir: str, pretrained: Pretrained | None
) -> ConfigDict:
    """A copy of `config` that alone rebuilds the network of the run in `workdir`.

    Its `model` has the name and the options that come with the weights. A run that has
    a checkpoint recalls them from weights.json.

    Raises:
      UserError: weights are to be loaded and were not, or the reverse.
    """
    if not config.model.weights:
        if pretrained:
            raise UserError("model.weights is unset, expected what the weights are")
        return config
    settled = copy.deepcopy(config)
    if pretrained:
        _adopt(settled, pretrained.network)
    elif not has_checkpoint(workdir):
        raise UserError(
            f"model.weights is {config.model.weights!r}, which was not loaded: pass it "
            "as `pretrained`, or unset the key"
        )
    elif os.path.exists(_path(workdir)):
        start = read_json(_path(workdir))
        # Where the weights lay, `check_workdir` compares.
        asked = start.get("asked", {}) | {"weights": config.model.weights}
        if asked == _chosen(config):
            became = start.get("became", {}) | {"weights": config.model.weights}
            _adopt(settled, became)
    return settled


def record_start(workdir: str, asked: ConfigDict, settled: ConfigDict) -> None:
    """Notes in weights.json what `settle_model` was asked for and what came of it."""
    values = {"asked": _chosen(asked), "became": _chosen(settled)}
    write_json(_path(workdir), values)


def has_checkpoint(workdir: str) -> bool:
    """Whether a run in `workdir` would continue, and needs no weights to start from."""
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.latest_step is not None


def _chosen(config: ConfigDict) -> dict[str, Any]:
    return {key: value for key, value in config.model.items() if value is not None}


def _adopt(config: ConfigDict, network: Mapping[str, Any]) -> None:
    for key, value in network.items():
        config.model[key] = value


def _path(workdir: str) -> str:
    return os.path.join(workdir, "weights.json")
