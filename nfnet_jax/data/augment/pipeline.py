"""From drawn 8-bit images to a batch of the network, inside the compiled step."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from nfnet_jax.data.augment.crops import cutout, erase, normalize
from nfnet_jax.data.augment.mixing import drawn_per_image, mix
from nfnet_jax.data.augment.randaugment import rand_augment
from nfnet_jax.data.loading.batches import Batch, example_keys


def finish_batch(
    batch: Batch,
    key: jax.Array,
    config: ConfigDict,
    moments: tuple[ArrayLike, ArrayLike],
    num_classes: int,
) -> tuple[jax.Array, jax.Array]:
    """Mixes, distorts, normalizes and erases.

    What happens to an image depends on `key` and its position alone.

    Args:
      batch: of either loader.
      key: of the run.
      config: the whole of it.
      moments: mean and standard deviation, float32 [C], of pixels scaled to [0, 1].
      num_classes: K.

    Returns:
      Normalized images float32 [N, H, W, C], and class probabilities float32 [N, K]
      before label smoothing.
    """
    images, labels, positions = batch
    augment = config.data.augment
    mixing, distorting, covering, erasing = _keys(key, positions)
    targets = jax.nn.one_hot(labels, num_classes)
    if drawn_per_image(config.train) == 2:
        images, targets = mix(images, targets, positions, mixing, config.train)
    if augment.randaugment.layers:
        images = rand_augment(
            images,
            distorting,
            augment.randaugment.layers,
            augment.randaugment.magnitude,
        )
    images = normalize(images, *moments)
    if augment.cutout:
        images = cutout(images, _uniform(covering, 2), augment.cutout)
    if augment.erasing:
        images = erase(images, _uniform(erasing, 5), augment.erasing)
    return images, targets


def _keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """Four keys for every position, [4, N]."""
    own = example_keys(key, positions)
    return jnp.moveaxis(jax.vmap(lambda k: jax.random.split(k, 4))(own), 0, 1)


def _uniform(keys: jax.Array, count: int) -> jax.Array:
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)
