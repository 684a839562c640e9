"""Parts that several config files share."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from nfnet_jax.config.base import base_config
from nfnet_jax.utils.errors import UserError, nearest


def choose(variants: Mapping[str, Any], name: str) -> Any:
    """Returns `variants[name]`, for the argument of a config file.

    Raises:
      UserError: there is none of that name.
    """
    if name not in variants:
        raise UserError(
            f"unknown variant {name!r}, expected one of {', '.join(variants)}"
            f"{nearest(name, variants)}"
        )
    return variants[name]


def imagenet_recipe(
    model: str, train_size: int, eval_size: int | None = None
) -> ConfigDict:
    """Returns what the published recipes for ImageNet have in common.

    That are the recipes of NF-ResNets and NF-RegNets (Brock, De, Smith 2021a,
    "Characterizing signal propagation to close the performance gap in unnormalized
    ResNets", arXiv 2101.08692) and of NFNets (Brock, De, Smith, Simonyan 2021b,
    "High-performance large-scale image recognition without normalization", arXiv
    2102.06171). A config file sets the rest: the form of evaluation images, batch size,
    rate and its decay, weight decay, AGC, epochs.

    Args:
      model: name of the network, which names the run too.
      train_size: pixels of the side in training.
      eval_size: pixels of the side in evaluation; None: as in training.
    """
    config = base_config()
    config.name = f"imagenet_{model}"
    config.model.name = model
    config.data.name = "tfds:imagenet2012"
    config.data.eval_split = "validation"
    config.data.image_size = train_size
    config.data.eval_image_size = eval_size
    config.data.eval_batch_size = 512
    config.data.augment.random_resized_crop = True
    config.data.augment.flip = True
    config.optim.schedule.warmup_epochs = 5.0
    config.optim.ema_decay = 0.99999
    config.train.label_smoothing = 0.1
    config.train.mixup = 0.2
    config.train.cutmix = True
    config.eval.every_epochs = 5.0
    config.checkpoint.every_epochs = 1.0
    return config
