"""MixUp and CutMix: every training image made of two, its label of two classes.

Pairs are neighbours in the order of drawing: image i of a batch is made of the drawn
images 2i and 2i + 1. With both mixings, examples of even id are mixed by MixUp, those
of odd id by CutMix: half of every batch each.

Zhang et al. 2017, "mixup: beyond empirical risk minimization", arXiv 1710.09412; Yun et
al. 2019, "CutMix: regularization strategy to train strong classifiers with localizable
features", arXiv 1905.04899.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from nfnet_jax.data.augment.crops import box_mask


def drawn_per_example(train: ConfigDict) -> int:
    """Number of images drawn for one example; `train` is `config.train`."""
    return 2 if train.mixup or train.cutmix else 1


def mix(
    images: jax.Array,
    targets: jax.Array,
    example_ids: jax.Array,
    keys: jax.Array,
    train: ConfigDict,
) -> tuple[jax.Array, jax.Array]:
    """Mixes neighbours, and their targets in the same ratio, by `config.train`.

    Images uint8 [2N, H, W, C] and class probabilities float32 [2N, K] become [N, ...]
    each, with `example_ids` and `keys` [N] of their own.
    """
    shape = images.shape[1:3]
    masks = []
    if train.mixup:
        ratios = jax.vmap(jax.random.beta, (0, None, None))(
            keys, train.mixup, train.mixup
        )
        masks.append(jnp.broadcast_to(ratios[:, None, None], (len(keys), *shape)))
    if train.cutmix:
        masks.append(jax.vmap(cutmix_mask, (0, None))(keys, shape))
    odd = (example_ids % 2 == 1)[:, None, None]
    mask = jnp.where(odd, masks[-1], masks[0])
    mixed = _blend(images.astype(jnp.float32), mask[..., None])
    targets = _blend(targets, mask.mean((1, 2))[:, None])
    return jnp.round(mixed).astype(jnp.uint8), targets


def cutmix_mask(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Mask float32 [H, W]: 1 where the first image of a pair shows, 0 elsewhere.

    A box of the image's aspect, its area uniform, centred on any pixel and clipped at
    the borders. As in the published code, halves of its sides are whole pixels.
    """
    area_key, centre_key = jax.random.split(key)
    side = jnp.sqrt(1 - jax.random.uniform(area_key))
    sizes = jnp.array(shape)
    half = jnp.floor(side * sizes.astype(side.dtype)).astype(jnp.int32) // 2
    centre = jax.random.randint(centre_key, (2,), 0, sizes)
    return box_mask(shape, *(centre - half), *(centre + half)).astype(jnp.float32)


def _blend(pairs: jax.Array, ratio: jax.Array) -> jax.Array:
    return ratio * pairs[0::2] + (1 - ratio) * pairs[1::2]
