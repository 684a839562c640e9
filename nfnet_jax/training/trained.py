"""Weights of earlier trainings: a run's network and scores, the start of another run.

`weights.json` of a run that started from weights has the model that was asked for, and
what `pin_model` made of it.
"""

import copy
import dataclasses
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from nfnet_jax.config import model_overrides
from nfnet_jax.data.class_names import imagenet_synsets
from nfnet_jax.data.dataset import Dataset
from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import find
from nfnet_jax.optim.tree import Params
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.data_spec import DataSpec, find_data_spec, read_data_spec
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.logging import check_wandb
from nfnet_jax.training.parallel import WHOLE
from nfnet_jax.training.pretrained import Pretrained
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.workdir import (
    check_network,
    read_config,
    read_json,
    write_json,
)
from nfnet_jax.utils.errors import UserError, no_directory


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network with its weights, and how images were prepared for it.

    `variables` are what `model.apply` takes: `params`, and `batch_stats` of BatchNorm.
    `dtype` is that of the images it was trained on, `crop` the rule of
    `preprocess.CROPS` that it was evaluated by, at `eval_image_size` where it had
    another size than in training. `step` counts the updates that it had.
    """

    model: Network
    variables: Params
    data_spec: DataSpec
    dtype: str = "float32"
    crop: str = "training"
    eval_image_size: int | None = None
    step: int | None = None


def load_run(workdir: str) -> Trained:
    """Returns the network of a run: averaged parameters of the last checkpoint.

    Raises:
      UserError: there is no run, no complete checkpoint, or a damaged file.
    """
    config = read_config(workdir)
    experiment = Experiment(config, given_spec=read_data_spec(workdir))
    found = _restore(workdir, experiment, "ema_params")
    variables = {"params": found["ema_params"]}
    if found["batch_stats"]:
        variables["batch_stats"] = found["batch_stats"]
    return Trained(
        experiment.model,
        variables,
        experiment.data_spec,
        config.train.dtype,
        config.data.crop,
        config.data.eval_image_size,
        int(found["step"]),
    )


def score_checkpoint(
    config: ConfigDict, workdir: str, dataset: Dataset | None = None
) -> dict[str, float]:
    """Returns the scores of the last checkpoint in `workdir`, with its `step`.

    `dataset` replaces that of the config. Its classes are those of the run by name;
    some may be missing.

    Raises:
      UserError: there is no sound checkpoint, the config is of another network, or the
        data have other classes.
    """
    check_network(workdir, config)
    spec = find_data_spec(workdir)
    experiment = Experiment(config, dataset, given_spec=spec)
    found = _restore(workdir, experiment, "params", "ema_params")
    if not spec:
        sys.stderr.write(
            f"{workdir} has no data.json: classes are taken in the order of the data, "
            "images normalized by their moments\n"
        )
    everywhere = NamedSharding(experiment.mesh, WHOLE)
    found = jax.device_put(found, everywhere)
    state = TrainState(**found, skipped=jnp.zeros((), jnp.int32), opt_state=())
    return {"step": int(state.step)} | experiment.evaluate(state)


def _restore(workdir: str, experiment: Experiment, *params: str) -> Params:
    """The fields `params`, `batch_stats` and `step` of the last checkpoint."""
    shapes, batch_stats = experiment.abstract_variables
    step = jax.ShapeDtypeStruct((), "int32")
    wanted = dict.fromkeys(params, shapes) | {"batch_stats": batch_stats, "step": step}
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore(wanted, whole=False)


def set_data_dir(config: ConfigDict, data_dir: str) -> None:
    """Points the data of `config` at `data_dir`, the value of a flag --data_dir.

    Raises:
      UserError: it is no directory, has not the TFDS set, or the data are not files.
    """
    name = config.data.name
    if not name.startswith(("folder:", "tfds:")):
        raise UserError(
            f"--data_dir is {data_dir!r}, expected none: the data of the run, {name!r},"
            " lie in no directory"
        )
    if not os.path.isdir(os.path.expanduser(data_dir)):
        raise UserError(f"--data_dir is {data_dir!r}, {no_directory(data_dir)}")
    if name.startswith("folder:"):
        config.data.name = f"folder:{data_dir}"
        return
    from nfnet_jax.data.sources.tfds_builder import check_prepared

    check_prepared(name.removeprefix("tfds:"), data_dir)
    config.data.dir = data_dir


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
    pinned, path = copy.deepcopy(config), os.path.join(workdir, "weights.json")
    if pretrained:
        pinned.model.update(pretrained.network)
    elif not has_checkpoint(workdir):
        raise UserError(
            f"model.weights is {config.model.weights!r}, which was not loaded: pass it "
            "as `pretrained`, or unset the key"
        )
    elif os.path.exists(path):
        start = read_json(path)
        # Where the weights lay, `check_workdir` compares.
        weights = {"weights": config.model.weights}
        if start.get("asked", {}) | weights == _chosen(config):
            pinned.model.update(start.get("became", {}) | weights)
    return pinned


def record_origin(workdir: str, asked: ConfigDict, pinned: ConfigDict) -> None:
    """Writes weights.json."""
    values = {"asked": _chosen(asked), "became": _chosen(pinned)}
    write_json(os.path.join(workdir, "weights.json"), values)


def has_checkpoint(workdir: str) -> bool:
    """True if a run in `workdir` would continue, and needs no weights to start from."""
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.latest_step is not None


def _chosen(config: ConfigDict) -> dict[str, Any]:
    return {key: value for key, value in config.model.items() if value is not None}
