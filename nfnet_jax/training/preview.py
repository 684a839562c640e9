"""The first training batch made visible again."""

import numpy as np
from ml_collections import ConfigDict

from nfnet_jax.training.experiment import Experiment
from nfnet_jax.utils.errors import UserError


def preview_batch(
    config: ConfigDict, most: int
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """The first images of the first batch of a run, as its network sees them.

    Returns:
      Images uint8 [N, H, W, C], their normalization undone; for each the names of its
      classes, largest share first, with the shares where there are two.

    Raises:
      UserError: data that cannot be had, or values that do not fit it.
    """
    experiment = Experiment(config)
    dataset = experiment.dataset
    images, targets, _ = experiment.first_batch
    if dataset.image_shape[-1] not in (1, 3):
        raise UserError(
            f"{config.data.name} has images of {dataset.image_shape[-1]} channels, "
            "expected 1 or 3 to show them"
        )
    pixels = np.asarray(images[:most], np.float32) * dataset.std + dataset.mean
    pixels = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    return pixels, [
        _caption(t, dataset.class_names) for t in np.asarray(targets[:most])
    ]


def _caption(target: np.ndarray, names: tuple[str, ...]) -> tuple[str, ...]:
    order = [i for i in np.argsort(-target, kind="stable")[:2] if target[i] >= 0.005]
    if len(order) == 1:
        return (names[order[0]],)
    return tuple(f"{names[i]} {target[i]:.0%}" for i in order)
