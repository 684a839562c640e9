"""Networks with the weights that somebody published."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nfnet_jax.cache import cache_directory
from nfnet_jax.download import fetch, lock
from nfnet_jax.errors import UserError
from nfnet_jax.interop import haiku, timm
from nfnet_jax.interop.files import Weights, read_weights
from nfnet_jax.interop.published import find_published
from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import create_model, find, list_models
from nfnet_jax.paths import local_path


def load_pretrained(
    model_name: str,
    weights: str | Path,
    num_classes: int | None = None,
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
        (`interop.published`), which are downloaded once.
      num_classes: logits; None: as many as the weights have. Where they have another
        number, the classifier is new.
      **overrides: further options of `create_model`, such as `se_ratio`.

    Returns:
      (model, params): `model.apply({"params": params}, images)` are logits.

    Raises:
      UserError: no such weights, or weights of another network.
      ValueError: unknown model or option.
    """
    find(_timm_name(model_name))
    path = locate(weights)
    arrays: Any = read_weights(path)
    try:
        published = _classes(arrays)
        if _is_tree(arrays):
            model = create_model(
                model_name, published, **_haiku_options(model_name, overrides)
            )
            params = haiku.convert(arrays, model)
        else:
            model = create_model(_timm_name(model_name), published, **overrides)
            params = timm.convert(arrays, model)
    except UserError as error:
        raise UserError(f"{path}: not weights of {model_name!r}: {error}") from error
    params = jax.tree.map(jnp.asarray, params)
    if num_classes in (None, published):
        return model, params
    return _with_new_head(model, params, num_classes)


def locate(weights: str | Path) -> Path:
    """The file of weights: the path itself, or downloaded by name.

    Raises:
      UserError: neither a file nor published, or the download failed.
    """
    path = local_path(weights, "weights")
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    published = find_published(str(weights))
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


def _classes(arrays: Any) -> int:
    """Number of logits of the network that the arrays belong to."""
    if _is_tree(arrays):
        heads = [
            own["b"]
            for module, own in arrays.items()
            if module.endswith("/linear") and module.count("/~/") == 1 and "b" in own
        ]
    else:
        heads = [arrays[name] for name in ("head.fc.bias",) if name in arrays]
    if len(heads) != 1 or heads[0].ndim != 1 or not heads[0].size:
        raise UserError(
            "neither the Haiku code's naming (NETWORK/~/linear:b) nor timm's "
            "(head.fc.bias)"
        )
    return len(heads[0])


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
    features = params["head"]["classifier"]["kernel"].shape[0]
    classifier = nn.Dense(num_classes, kernel_init=model.head.kernel_init)
    new = classifier.init(jax.random.key(0), jnp.zeros((1, features)))["params"]
    return model, {**params, "head": {**params["head"], "classifier": new}}
