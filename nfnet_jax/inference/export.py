"""Export of a trained network as one file that runs without this package.

"jax": a serialized `jax.export` with the weights inside, for CPU, CUDA and TPU:

    file = bytearray(pathlib.Path("f0.jaxexport").read_bytes())
    logits = jax.export.deserialize(file).call(images)

"onnx": a graph for ONNX Runtime and others, images -> logits. Either takes normalized
float32 images [N, H, W, C], with any N and the H, W, C that it was written for, and
holds the folded network (`inference.fold`), a BatchNorm or Fixup baseline as it is.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfnet_jax.inference import onnx as onnx_file
from nfnet_jax.inference.fold import fold, is_foldable
from nfnet_jax.models.network import Network
from nfnet_jax.utils.errors import UserError, nearest
from nfnet_jax.utils.files import check_local, replacing
from nfnet_jax.utils.strict_json import dumps

Variables = Mapping[str, Any]
"""{"params": ...}, with "batch_stats" for BatchNorm networks."""
ImageShape = tuple[int, int, int]
Logits = Callable[[Any], Any]
"""images [N, H, W, C] -> logits [N, num_classes]."""

PLATFORMS = ("cpu", "cuda", "tpu")
LARGEST = (1 << 31) - (1 << 26)
"""Bytes of weights: neither format can hold 2 GiB in one file."""
TOLERANCE = 1e-4
"""Largest error of a written network's logits, relative to the largest logit."""
BATCHES = (1, 7)


def export_network(
    path: str,
    model: Network,
    variables: Variables,
    image_shape: ImageShape,
    *,
    file_format: str = "jax",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes the network to `path` and its description to `path`.json.

    Before the new file takes its name, it is loaded and compared with `model` on random
    images, on the CPU. An error leaves an older file at `path` as it was.

    Args:
      path: file to write, in an existing directory.
      model: made by `create_model`.
      variables: float32.
      image_shape: [H, W, C] of an image.
      file_format: one of `FORMATS`.
      facts: further entries of the .json, such as `mean` and `std` of the pixels.

    Raises:
      UserError: `path` cannot be written, weights are too large for one file or not
        finite, the format needs a package that is not installed, or the file does not
        compute the same logits.
    """
    check_target(path, file_format)
    check_size(variables)
    facts = {
        "model": model.spec.name,
        "overrides": dict(model.spec.overrides),
        "num_classes": model.spec.num_classes,
        "image_shape": list(image_shape),
        "format": file_format,
        **(facts or {}),
    }
    write, load = FORMATS[file_format]
    try:
        with replacing(path) as part, replacing(f"{path}.json") as sheet:
            write(str(part), *_inference_form(model, variables), image_shape)
            check_logits(load(str(part)), model, variables, image_shape)
            sheet.write_text(dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path!r}: {error.strerror}") from error


def load_exported(path: str) -> Logits:
    """Function images -> logits of an exported network, ONNX if `path` ends in .onnx.

    Raises:
      UserError: no such file, or it is damaged.
    """
    _, load = FORMATS[format_of(path)]
    try:
        return load(path)
    except OSError as error:
        raise UserError(f"cannot read {path!r}: {error.strerror}") from error


def format_of(path: str) -> str:
    """Format by the ending of a file name."""
    return "onnx" if path.endswith(".onnx") else "jax"


def check_target(path: str, file_format: str) -> None:
    """Checks format and path before there is a network.

    Raises:
      UserError: unknown format, one whose packages are not installed, or a path that
        cannot be written.
    """
    if file_format not in FORMATS:
        raise UserError(
            f"format {file_format!r}: expected one of {', '.join(FORMATS)}"
            f"{nearest(file_format, FORMATS)}"
        )
    if file_format == "onnx":
        onnx_file.check_installed()
    check_local(path, "the file to write")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"cannot write {path!r}: {folder!r} is not a directory")
    if os.path.isdir(path):
        raise UserError(f"cannot write {path!r}: it is a directory, expected a file")
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {path!r}: no permission to write in {folder!r}")


def check_size(variables: Variables) -> None:
    """Raises UserError if the weights do not fit into one file."""
    size = sum(leaf.size * 4 for leaf in jax.tree.leaves(variables))
    if size > LARGEST:
        raise UserError(
            f"{size / 2**30:.1f} GiB of weights, expected less than "
            f"{LARGEST / 2**30:.1f} GiB in one file"
        )


def check_logits(
    found: Logits, model: Network, variables: Variables, image_shape: ImageShape
) -> None:
    """Raises UserError unless `found` gives the logits of `model` on random images.

    Computes on the CPU, where matrix products of float32 keep its precision.
    """
    shape = (max(BATCHES), *image_shape)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        expected = np.asarray(jax.jit(model.apply)(variables, images))
        for batch in BATCHES:
            worst = np.abs(np.asarray(found(images[:batch])) - expected[:batch]).max()
            error = worst / max(np.abs(expected).max(), 1e-30)
            if not error <= TOLERANCE:
                raise UserError(
                    "nothing was written: the file computes other logits (relative "
                    f"error {error:.1e}, expected at most {TOLERANCE:.0e})"
                )


def _inference_form(model: Network, variables: Variables) -> tuple[Network, Variables]:
    if not is_foldable(model):
        return model, variables
    folded, params = fold(model, variables["params"])
    return folded, {"params": params}


def _write_jax(
    path: str, model: Network, variables: Variables, image_shape: ImageShape
) -> None:
    from jax import export as jax_export

    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    logits = jax.jit(lambda images: model.apply(variables, images))
    exported = jax_export.export(logits, platforms=PLATFORMS)(images)
    with open(path, "wb") as file:
        file.write(exported.serialize())


def _load_jax(path: str) -> Logits:
    from jax import export as jax_export

    with open(path, "rb") as file:
        content = bytearray(file.read())
    try:
        exported = jax_export.deserialize(content)
    # The reader raises arbitrary exceptions on a damaged buffer.
    except Exception as error:
        raise UserError(f"{path!r} is damaged, expected a jax.export file") from error
    return jax.jit(exported.call)


FORMATS: dict[str, tuple[Callable, Callable[[str], Logits]]] = {
    "jax": (_write_jax, _load_jax),
    "onnx": (onnx_file.write, onnx_file.load),
}
