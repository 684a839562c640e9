"""A run's network for later commands."""

import dataclasses
import functools

import jax

from nfnet_jax.models.network import Network
from nfnet_jax.optim.tree import Params
from nfnet_jax.training.checkpoint.manager import Checkpoints
from nfnet_jax.training.data_spec import DataFacts, read_data_facts
from nfnet_jax.training.setup import build_model
from nfnet_jax.training.state import init_variables
from nfnet_jax.training.workdir import read_config


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network that has weights.

    `variables` are what `model.apply` takes: `params`, and `batch_stats` of BatchNorm.
    `dtype` is that of the images it was trained on, `crop` the rule of
    `preprocess.CROPS` that it was evaluated by, at `eval_image_size` where it had
    another size than in training. `step` counts the updates that it had.
    """

    model: Network
    variables: Params
    facts: DataFacts
    dtype: str = "float32"
    crop: str = "training"
    eval_image_size: int | None = None
    step: int | None = None


def load_run(workdir: str) -> Trained:
    """The network of the run in `workdir`, averaged parameters, last checkpoint.

    Raises:
      UserError: there is no run, no complete checkpoint, or a damaged file.
    """
    config, facts = read_config(workdir), read_data_facts(workdir)
    model = build_model(config, len(facts.class_names))
    params, batch_stats = jax.eval_shape(
        functools.partial(init_variables, model, 0, facts.image_shape)
    )
    with Checkpoints(workdir) as checkpoints:
        found = checkpoints.restore_some(
            {
                "ema_params": params,
                "batch_stats": batch_stats,
                "step": jax.ShapeDtypeStruct((), "int32"),
            }
        )
    variables = {"params": found["ema_params"]}
    if batch_stats:
        variables["batch_stats"] = found["batch_stats"]
    return Trained(
        model,
        variables,
        facts,
        config.train.dtype,
        config.data.crop,
        config.data.eval_image_size,
        int(found["step"]),
    )
