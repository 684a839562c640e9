"""Networks with published weights, downloaded by name or read from a file."""

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import create_model, find, list_models
from nfnet_jax.utils.download import RemoteFile, fetch, lock
from nfnet_jax.utils.errors import UserError, nearest
from nfnet_jax.utils.files import cache_directory, local_path
from nfnet_jax.weights.haiku import from_haiku
from nfnet_jax.weights.names import layer_shapes
from nfnet_jax.weights.read import Weights, beside, read_weights
from nfnet_jax.weights.timm import from_timm


def _deepmind(level: int) -> RemoteFile:
    url = "https://storage.googleapis.com/dm-nfnets"
    return RemoteFile(f"{url}/F{level}_haiku.npz")


def _timm(repository: str) -> RemoteFile:
    url = f"https://huggingface.co/timm/{repository}/resolve/main/model.safetensors"
    return RemoteFile(url, filename=f"{repository}.safetensors")


PUBLISHED = {
    **{f"nfnet_f{level}": _deepmind(level) for level in range(7)},
    **{f"dm_nfnet_f{level}": _timm(f"dm_nfnet_f{level}.dm_in1k") for level in range(7)},
    "nfnet_l0": _timm("nfnet_l0.ra2_in1k"),
    "eca_nfnet_l0": _timm("eca_nfnet_l0.ra2_in1k"),
    "eca_nfnet_l1": _timm("eca_nfnet_l1.ra2_in1k"),
    "eca_nfnet_l2": _timm("eca_nfnet_l2.ra3_in1k"),
    "timm_nf_regnet_b1": _timm("nf_regnet_b1.ra2_in1k"),
    "timm_nf_resnet50": _timm("nf_resnet50.ra2_in1k"),
}
"""Published weights by the name of their network: nfnet_f* in the naming of the
published Haiku code, all others in timm's. No publisher states checksums."""

_BLOCK = re.compile(r"stages\.\d+\.\d+|(?<=/)(nf_|res_|nf_res_)block(_\d+)?(?=/|$)")
"""Name of a residual block within that of a parameter, in either naming."""


def load_pretrained(
    model_name: str,
    weights: str | Path,
    num_classes: int | None = None,
    *,
    headless: bool = False,
    **overrides: Any,
) -> tuple[Network, dict]:
    """A network and its parameters from published weights.

    Weights in timm's naming get the network as timm defines it, where that differs:
    `nf_resnet50` becomes `timm_nf_resnet50`, `nfnet_f0` becomes `dm_nfnet_f0`. Weights
    of the published Haiku code get its γ. `model.spec` is the network that was made.

    Args:
      model_name: a name that `create_model` takes, or one of timm's for weights in
        its naming (`nf_seresnet50`).
      weights: a file that `read_weights` takes, or one of `PUBLISHED`, which is
        downloaded once.
      num_classes: logits; None: as many as the weights have. Where they have another
        number, or no classifier, the classifier is new.
      headless: True: weights without a classifier give parameters without one.
      **overrides: further options of `create_model`, such as `se_ratio`.

    Returns:
      (model, params): `model.apply({"params": params}, images)` are logits.

    Raises:
      UserError: no such weights, weights of another network, or without a classifier
        where neither `num_classes` nor `headless` is given.
      ValueError: unknown model or option.
    """
    find(_timm_name(model_name))
    path = weights_file(weights)
    arrays: Any = read_weights(path)
    nested = any(isinstance(value, Mapping) for value in arrays.values())
    convert = _haiku_network if nested else _timm_network
    try:
        model, params = convert(model_name, arrays, overrides)
    except UserError as error:
        hint = _another_model(convert, model_name, arrays, overrides)
        raise UserError(
            f"{path}: not weights of {model_name!r}: {error}{hint}"
        ) from error
    params = jax.tree.map(jnp.asarray, params)
    has_classifier = "classifier" in params.get("head", {})
    if not (has_classifier or num_classes or headless):
        raise UserError(
            f"{path}: weights without a classifier, expected num_classes, of a new one,"
            " or to start a training from them (model.weights)"
        )
    published = model.spec.num_classes if has_classifier else None
    if num_classes in (None, published):
        return model, params
    return _with_new_head(model, params, num_classes)


def _haiku_network(name: str, tree: Any, overrides: Mapping) -> tuple[Network, dict]:
    heads = [
        own["b"]
        for module, own in tree.items()
        if module.endswith("/~/linear") and "/squeeze_excite/" not in module
        if "b" in own
    ]
    # Networks that have a γ get the one that the weights were trained with.
    gamma = {} if "gamma" in find(name).settings else {"gamma": "published"}
    model = create_model(name, _classes(heads), **(gamma | dict(overrides)))
    return model, from_haiku(tree, model)


def _timm_network(name: str, arrays: Any, overrides: Mapping) -> tuple[Network, dict]:
    is_bias = re.compile(r"(^|[./:])head\.fc\.bias$").search
    heads = [array for entry, array in arrays.items() if is_bias(entry)]
    model = create_model(_timm_name(name), _classes(heads), **overrides)
    return model, from_timm(arrays, model)


def _classes(biases: list[np.ndarray]) -> int:
    """Number of logits by the bias of the classifier; 1 without a classifier."""
    return max(1, biases[0].size) if biases else 1


def _another_model(
    convert: Callable, name: str, arrays: Weights, overrides: Mapping
) -> str:
    """A hint at the model that has such weights, or an empty string."""
    blocks = {found[0] for entry in arrays for found in _BLOCK.finditer(entry)}
    for other in difflib.get_close_matches(name, list_models(), 99, 0):
        try:
            # Cheaper to compare than parameters.
            stages = create_model(other, 1).stages
            if sum(len(getattr(stage, "betas", ())) for stage in stages) != len(blocks):
                continue
            model, _ = convert(other, arrays, overrides)
        except (UserError, ValueError):
            continue
        return f"; did you mean the model {model.spec.name!r}?"
    return ""


def weights_file(weights: str | Path) -> Path:
    """The path `weights`, or that of published weights, downloaded at the first call.

    Raises:
      UserError: neither a file nor published, or the download failed.
    """
    path = local_path(weights, "weights")
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    name = str(weights)
    if name not in PUBLISHED:
        raise UserError(
            f"weights {name!r}: neither a file nor published, expected one of "
            f"{', '.join(PUBLISHED)}{beside(path) or nearest(name, PUBLISHED)}"
        )
    remote, directory = PUBLISHED[name], cache_directory() / "weights"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with lock(directory / f"{remote.name}.lock"):
            return fetch(remote, directory)
    except OSError as error:
        raise UserError(
            f"weights {weights!r} cannot be kept in {directory} ({error}); set "
            "NFNET_JAX_CACHE to a writable directory"
        ) from error


def _timm_name(name: str) -> str:
    for timms in (f"timm_{name}", f"dm_{name}"):
        if timms in list_models():
            return timms
    return name


def _with_new_head(
    model: Network, params: dict, num_classes: int
) -> tuple[Network, dict]:
    spec = model.spec
    model = create_model(spec.name, num_classes, **dict(spec.overrides))
    features, _ = layer_shapes(model)["head", "classifier", "kernel"]
    classifier = nn.Dense(num_classes, kernel_init=model.head.kernel_init)
    new = classifier.init(jax.random.key(0), jnp.zeros((1, features)))["params"]
    return model, {**params, "head": {**params.get("head", {}), "classifier": new}}
