"""What several config files share."""

from ml_collections import ConfigDict

from nfnet_jax.config import base_config


def imagenet_recipe(
    model: str, train_size: int, eval_size: int | None = None
) -> ConfigDict:
    """What the published recipes for ImageNet have in common [HP, SP].

    A config file sets the rest: the form of evaluation images, batch size, rate and
    its decay, weight decay, AGC, epochs.

    Args:
      model: name of the network, which names the run too.
      train_size: pixels of the side in training.
      eval_size: in evaluation; None: as in training.
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
