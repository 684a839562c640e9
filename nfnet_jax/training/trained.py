"""Checkpoints of a run for later commands: its network, its scores."""

import dataclasses
import os
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from nfnet_jax.data.dataset import Dataset
from nfnet_jax.models.network import Network
from nfnet_jax.optim.tree import Params
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.data_spec import DataSpec, find_data_spec, read_data_spec
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.parallel import WHOLE
from nfnet_jax.training.state import TrainState
from nfnet_jax.training.workdir import check_network, read_config
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
        return checkpoints.restore_some(wanted)


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
