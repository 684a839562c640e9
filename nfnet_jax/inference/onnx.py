"""Networks as ONNX graphs: written by jax2onnx, read by ONNX Runtime."""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nfnet_jax.inference.unroll import unroll
from nfnet_jax.models.network import Network
from nfnet_jax.ops.conv import native_operations
from nfnet_jax.utils.errors import UserError

OPSET = 18
"""Of 2022: what is deployed understands it."""


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
    """The logits of `model` for "images" [N, H, W, C], any N, as output "logits".

    jax2onnx knows neither Flax's scan over a symbolic batch nor platform-dependent
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
    """images -> logits by ONNX Runtime on the CPU.

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


def _drop_unused_constants(graph) -> None:
    """jax2onnx leaves some, and ONNX Runtime warns of each."""
    used = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
