"""MixUp and CutMix: every training image made of two, its label of two classes.

Pairs are neighbours in the order of drawing: image i of a batch is made of the drawn
images 2i and 2i + 1. With both mixings, images at even positions are mixed by MixUp and
those at odd ones by CutMix, so that half of every batch is each.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from nfnet_jax.data.augment.windows import window


def drawn_per_image(config: ConfigDict) -> int:
    """How many images are drawn for one of the batch; `config` is `config.train`."""
    return 2 if config.mixup or config.cutmix else 1


def mix(
    images: jax.Array,
    targets: jax.Array,
    positions: jax.Array,
    keys: jax.Array,
    config: ConfigDict,
) -> tuple[jax.Array, jax.Array]:
    """Mixes neighbours, and their targets in the same ratio.

    Args:
      images: uint8 [2N, H, W, C] as they were drawn.
      targets: class probabilities float32 [2N, K].
      positions: of the results in the run [N].
      keys: one for each result [N].
      config: `config.train`, of which `mixup` or `cutmix` is set.

    Returns:
      uint8 [N, H, W, C], rounded, and float32 [N, K].
    """
    shape = images.shape[1:3]
    masks = []
    if config.mixup:
        ratios = jax.vmap(jax.random.beta, (0, None, None))(
            keys, config.mixup, config.mixup
        )
        masks.append(jnp.broadcast_to(ratios[:, None, None], (len(keys), *shape)))
    if config.cutmix:
        masks.append(jax.vmap(cutmix_mask, (0, None))(keys, shape))
    odd = (positions % 2 == 1)[:, None, None]
    mask = jnp.where(odd, masks[-1], masks[0])
    mixed = _blend(images.astype(jnp.float32), mask[..., None])
    targets = _blend(targets, mask.mean((1, 2))[:, None])
    return jnp.round(mixed).astype(jnp.uint8), targets


def cutmix_mask(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """1 where the first image of a pair shows, 0 elsewhere: float32 [H, W].

    A box of the image's aspect, its area uniform, centred on any pixel and clipped at
    the borders. As in the published code, halves of its sides are whole pixels.
    """
    area_key, centre_key = jax.random.split(key)
    side = jnp.sqrt(1 - jax.random.uniform(area_key))
    sizes = jnp.array(shape)
    half = jnp.floor(side * sizes.astype(side.dtype)).astype(jnp.int32) // 2
    centre = jax.random.randint(centre_key, (2,), 0, sizes)
    return window(shape, *(centre - half), *(centre + half)).astype(jnp.float32)


def _blend(pairs: jax.Array, ratio: jax.Array) -> jax.Array:
    return ratio * pairs[0::2] + (1 - ratio) * pairs[1::2]
