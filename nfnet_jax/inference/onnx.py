"""Networks as ONNX graphs: written by jax2onnx, read by ONNX Runtime."""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nfnet_jax.models.network import Network
from nfnet_jax.models.stage import unstack_blocks
from nfnet_jax.ops.conv import native_operations
from nfnet_jax.utils.errors import UserError

OPSET = 18
"""The operator set of 2022, which deployed runtimes support."""

Parts = list[dict[str, Any]]
"""Variables of the stem, of every block and of the head."""


def check_installed() -> None:
    """Raises UserError unless the packages of the extra are there."""
    for package in ("jax2onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"ONNX needs {package}, which is not installed: "
                "pip install 'nfnet_jax[onnx]'"
            )


def write(
    path: str,
    model: Network,
    variables: Mapping[str, Any],
    image_shape: tuple[int, int, int],
) -> None:
    """Writes the graph from "images" [N, H, W, C], any N, to the "logits" of `model`.

    jax2onnx supports neither Flax's scan over a symbolic batch nor platform-dependent
    programs: the blocks are unrolled and the convolutions native.
    """
    import jax2onnx
    import onnx

    apply, parts = unroll(model, jax.tree.map(np.asarray, variables))
    with native_operations():
        graph = jax2onnx.to_onnx(
            functools.partial(apply, parts),
            [("N", *image_shape)],
            model_name=model.spec.name,
            opset=OPSET,
            input_names=["images"],
            output_names=["logits"],
        )
    _drop_unused_constants(graph.graph)
    onnx.save(graph, path)


def load(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """Function images -> logits of a graph, run by ONNX Runtime on the CPU.

    Raises:
      UserError: it is not installed, or `path` is damaged.
    """
    check_installed()
    import onnxruntime

    with open(path, "rb") as file:
        content = file.read()
    try:
        session = onnxruntime.InferenceSession(
            content, providers=["CPUExecutionProvider"]
        )
    # Every kind of failure has a class of its own, below Exception only.
    except Exception as error:
        raise UserError(f"{path!r} is damaged, expected an ONNX file") from error
    return lambda images: session.run(["logits"], {"images": np.asarray(images)})[0]


def unroll(
    model: Network, variables: Mapping[str, Any]
) -> tuple[Callable[[Parts, jax.Array], jax.Array], Parts]:
    """(apply, parts) without a scan: apply(parts, images) gives the logits.

    `variables`: "params", and "batch_stats" of a BatchNorm network. Stacked parameters
    become one entry of `parts` per block, so that the program does not slice them.
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


def _drop_unused_constants(graph) -> None:
    """Removes constants without a reader, each a warning of ONNX Runtime."""
    used = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _at(variables: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """Subtree at `path` of every collection, empty in those that lack it."""
    found = {}
    for collection, tree in variables.items():
        for key in path:
            tree = tree.get(key, {})
        found[collection] = tree
    return found
