"""What sets a network, or its images, apart from those that are predicted."""

from typing import Any

import jax
import numpy as np
from flax import traverse_util

from nfnet_jax.analysis.moments import moments, pooled_share

WHITE_SHARE = 0.25
"""Of the variance of white noise, that 2x2 averages leave."""


def of_training(variables: Any) -> str:
    """How far the gains have moved from where the prediction has them."""
    params = traverse_util.flatten_dict(variables["params"])
    gains = (("skip_gain", "skip gains"), ("gain", "gains of kernels"))
    ranges = [
        f"{name} are {_range(leaves)} instead of 1"
        for key, name in gains
        if (leaves := [leaf for path, leaf in params.items() if path[-1] == key])
    ]
    return f"the network is trained: {', '.join([*ranges, 'and its kernels moved'])}"


def of_images(images: jax.Array) -> str:
    """How far images [N, H, W, C] are from white noise of variance 1."""
    found = moments(images)
    text = (
        f"the images are no white noise: their variance is {float(found.var):.3g}, "
        f"their squared mean {float(found.sq_mean):.2g}"
    )
    if min(images.shape[1:3]) < 2:
        return text
    share = float(pooled_share(images))
    return f"{text}, and 2x2 averages keep {share:.2f} of it, of noise {WHITE_SHARE}"


def _range(leaves: list[jax.Array]) -> str:
    values = np.concatenate([np.ravel(leaf) for leaf in leaves])
    return f"{values.min():.2g} to {values.max():.2g}"
