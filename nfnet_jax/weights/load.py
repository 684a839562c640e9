"""Networks with the weights that somebody published."""

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
from nfnet_jax.utils.download import fetch, lock
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.files import cache_directory, local_path
from nfnet_jax.weights import haiku, timm
from nfnet_jax.weights.names import layer_shapes
from nfnet_jax.weights.read import Weights, beside, read_weights
from nfnet_jax.weights.urls import find_published

_BLOCK = re.compile(r"stages\.\d+\.\d+|(?<=/)(nf_|res_|nf_res_)block(_\d+)?(?=/|$)")
"""Names a residual block in what an entry of either naming is called."""


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
    of the published Haiku code get its γ. `model.spec` tells what was made.

    Args:
      model_name: a name that `create_model` takes, or one of timm's for weights in
        its naming (`nf_seresnet50`).
      weights: a file that `read_weights` takes, or the name of published weights
        (`weights.urls`), which are downloaded once.
      num_classes: logits; None: as many as the weights have. Where they have another
        number, or no classifier, the classifier is new.
      headless: True: weights without a classifier give parameters without one.
      **overrides: further options of `create_model`, such as `se_ratio`.

    Returns:
      (model, params): `model.apply({"params": params}, images)` are logits.

    Raises:
      UserError: no such weights, weights of another network, or without a classifier
        where neither `num_classes` nor `headless` tells what to do.
      ValueError: unknown model or option.
    """
    find(_timm_name(model_name))
    path = locate(weights)
    arrays: Any = read_weights(path)
    convert = _from_haiku if _is_tree(arrays) else _from_timm
    try:
        model, params = convert(model_name, arrays, overrides)
    except UserError as error:
        hint = _another_model(convert, model_name, arrays, overrides)
        raise UserError(
            f"{path}: not weights of {model_name!r}: {error}{hint}"
        ) from error
    params = jax.tree.map(jnp.asarray, params)
    if "classifier" in params.get("head", {}):
        published = model.spec.num_classes
    elif num_classes or headless:
        published = None
    else:
        raise UserError(
            f"{path}: weights without a classifier, expected num_classes, of a new one,"
            " or to start a training from them (model.weights)"
        )
    if num_classes in (None, published):
        return model, params
    return _with_new_head(model, params, num_classes)


def _from_haiku(name: str, tree: Any, overrides: Mapping) -> tuple[Network, dict]:
    heads = [
        own["b"]
        for module, own in tree.items()
        if module.endswith("/~/linear") and "/squeeze_excite/" not in module
        if "b" in own
    ]
    options = _haiku_options(name, overrides)
    model = create_model(name, _classes(heads), **options)
    return model, haiku.convert(tree, model)


def _from_timm(name: str, arrays: Any, overrides: Mapping) -> tuple[Network, dict]:
    heads = [
        array
        for entry, array in arrays.items()
        if re.search(r"(^|[./:])head\.fc\.bias$", entry)
    ]
    model = create_model(_timm_name(name), _classes(heads), **overrides)
    return model, timm.convert(arrays, model)


def _classes(biases: list[np.ndarray]) -> int:
    """Logits of a network with this bias of its classifier; 1 where it has none."""
    return max(1, biases[0].size) if biases else 1


def _another_model(
    convert: Callable, name: str, arrays: Weights, overrides: Mapping
) -> str:
    """A hint at the model that the weights are of, if there is one."""
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


def locate(weights: str | Path) -> Path:
    """The file of weights: the path itself, or downloaded by name.

    Raises:
      UserError: neither a file nor published, or the download failed.
    """
    path = local_path(weights, "weights")
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    published = find_published(str(weights), beside(path))
    directory = cache_directory() / "weights"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with lock(directory / f"{published.file.name}.lock"):
            return fetch(published.file, directory)
    except OSError as error:
        raise UserError(
            f"weights {weights!r} cannot be kept in {directory} ({error}); set "
            "NFNET_JAX_CACHE to a writable directory"
        ) from error


def _is_tree(arrays: Weights) -> bool:
    return any(isinstance(value, Mapping) for value in arrays.values())


def _haiku_options(name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Networks that have a γ get the one that published weights were trained with."""
    if "gamma" in find(name).settings:
        return dict(overrides)
    return {"gamma": "published", **overrides}


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
