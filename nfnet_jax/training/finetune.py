"""Fine-tuning: weights loaded for a run, and the network that comes with them."""

import copy
import os
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from nfnet_jax.config import model_overrides
from nfnet_jax.data.class_names import imagenet_synsets
from nfnet_jax.models.registry import find
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.logging import check_wandb
from nfnet_jax.training.pretrained import Pretrained
from nfnet_jax.training.trained import load_run
from nfnet_jax.training.workdir import read_json, write_json
from nfnet_jax.utils.errors import UserError


def load_weights(config: ConfigDict) -> Pretrained:
    """Loads the weights that `config.model.weights` names: a run's, or published ones.

    A run gives the averaged parameters of its last checkpoint and the moments that it
    normalized images by.

    Raises:
      UserError: no such weights, damaged ones, or weights of another model; before they
        are downloaded, data that cannot be had or that the run does not fit.
    """
    experiment = Experiment(config)
    experiment.check_config()
    check_wandb(config)
    experiment.check_data()
    weights = os.path.expanduser(config.model.weights)
    try:
        load = _from_run if os.path.isdir(weights) else _published
        return load(config, weights)
    except (UserError, ValueError) as error:
        reason = str(error).removeprefix("--workdir: ")
        raise UserError(f"model.weights: {reason}") from error


def _from_run(config: ConfigDict, workdir: str) -> Pretrained:
    trained = load_run(workdir)
    name, _, options = trained.model.spec
    if name != config.model.name:
        raise UserError(
            f"{workdir} is a run of {name!r}, model.name is {config.model.name!r}: "
            "expected the same"
        )
    return Pretrained(
        trained.variables["params"],
        trained.data_spec.mean,
        trained.data_spec.std,
        trained.variables.get("batch_stats", {}),
        # The new run's own options have precedence.
        {"name": name, **dict(options), **model_overrides(config)},
        trained.data_spec.class_names,
    )


def _published(config: ConfigDict, weights: str) -> Pretrained:
    # Imported here: the readers of weights take long to import.
    from nfnet_jax.weights.load import load_pretrained

    # A classifier that is not there is new anyway.
    model, params = load_pretrained(
        config.model.name, weights, headless=True, **model_overrides(config)
    )
    name, classes, options = model.spec
    variant = find(name)
    of_imagenet = classes == variant.num_classes == 1000
    return Pretrained(
        params,
        variant.mean,
        variant.std,
        network={"name": name, **dict(options)},
        class_names=imagenet_synsets() if of_imagenet else (),
    )


def pin_model(
    config: ConfigDict, workdir: str, pretrained: Pretrained | None
) -> ConfigDict:
    """Returns a copy of `config` that alone rebuilds the network of the run.

    Its `model` has the name and the options that come with the weights. A run that has
    a checkpoint recalls them from weights.json.

    Raises:
      UserError: weights are to be loaded and were not, or the reverse.
    """
    if not config.model.weights:
        if pretrained:
            raise UserError("model.weights is unset, expected what the weights are")
        return config
    pinned = copy.deepcopy(config)
    if pretrained:
        _adopt(pinned, pretrained.network)
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
            _adopt(pinned, became)
    return pinned


def record_origin(workdir: str, asked: ConfigDict, pinned: ConfigDict) -> None:
    """Writes weights.json: the model asked for, and what `pin_model` made of it."""
    values = {"asked": _chosen(asked), "became": _chosen(pinned)}
    write_json(_path(workdir), values)


def has_checkpoint(workdir: str) -> bool:
    """True if a run in `workdir` would continue, and needs no weights to start from."""
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.latest_step is not None


def _chosen(config: ConfigDict) -> dict[str, Any]:
    return {key: value for key, value in config.model.items() if value is not None}


def _adopt(config: ConfigDict, network: Mapping[str, Any]) -> None:
    for key, value in network.items():
        config.model[key] = value


def _path(workdir: str) -> str:
    return os.path.join(workdir, "weights.json")
