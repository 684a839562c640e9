"""A network without scans, for formats that have none."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from nfnet_jax.models.network import Network
from nfnet_jax.models.stage import unstack_blocks

Parts = list[dict[str, Any]]
"""Variables of the stem, of every block and of the head."""


def unroll(
    model: Network, variables: Mapping[str, Any]
) -> tuple[Callable[[Parts, jax.Array], jax.Array], Parts]:
    """(apply, parts): apply(parts, images) are the logits, block after block.

    `variables`: "params", and "batch_stats" of a BatchNorm network. What a scan stacks
    is taken apart here, so that the program of `apply` does not slice it.
    """
    variables = {name: unstack_blocks(tree) for name, tree in variables.items()}
    modules: list[tuple] = []
    parts = [_at(variables, "stem")]
    for i, stage in enumerate(model.stages):
        for index, beta in enumerate(stage.betas):
            modules.append((stage.block(index), beta))
            name = f"blocks_{index - 1}" if index else "transition"
            parts.append(_at(variables, f"stages_{i}", name))
    parts.append(_at(variables, "head"))

    def apply(parts: Parts, images: jax.Array) -> jax.Array:
        stem, *blocks, head = parts
        x = model.stem.apply(stem, images)
        for (block, beta), own in zip(modules, blocks, strict=True):
            x = block.apply(own, x, beta, 0.0, train=False)
        logits: Any = model.head.apply(head, x, train=False)
        return logits

    return apply, parts


def _at(variables: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """What every collection has there, nothing where it lacks the place."""
    found = {}
    for collection, tree in variables.items():
        for key in path:
            tree = tree.get(key, {})
        found[collection] = tree
    return found
