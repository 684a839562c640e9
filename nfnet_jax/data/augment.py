"""Augmentation inside the compiled step: shifted crops, flips, cutout."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from nfnet_jax.data.batches import Batch, example_keys


def finish(
    batch: Batch,
    key: jax.Array,
    config: ConfigDict,
    moments: tuple[jax.Array, jax.Array],
    num_classes: int,
) -> tuple[jax.Array, jax.Array]:
    """From crops to what the network is trained on.

    Args:
      batch: of either loader.
      key: of the run; each example's is folded from its position.
      config: the whole config.
      moments: mean and standard deviation, float32 [C], of pixels scaled to [0, 1].
      num_classes: of the network.

    Returns:
      images float32 [N, H, W, C], and targets float32 [N, num_classes]: a distribution
      over the classes.
    """
    images = normalize(batch.images, *moments)
    if size := config.data.augment.cutout:
        keys = example_keys(key, batch.positions)
        draws = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
        images = cutout(images, draws, size)
    targets = jax.nn.one_hot(batch.labels, num_classes)
    return images, optax.smooth_labels(targets, config.train.label_smoothing)


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """uint8 [N, H, W, C] -> float32 of mean 0 and variance 1 per channel."""
    return (images.astype(jnp.float32) / 255 - mean) / std


def take_crops(
    images: jax.Array, indices: jax.Array, draws: jax.Array, config: ConfigDict
) -> jax.Array:
    """Shifted and flipped views of some images, in one gather.

    A crop with `config.crop_padding` pixels of mirrored padding, and a horizontal flip,
    only change which pixel is read, so the padded images are never made.

    Args:
      images: the data set [M, H, W, C].
      indices: examples to take [N].
      draws: uniform numbers in [0, 1), [N, 3] for row shift, column shift and flip.
      config: `config.data.augment`.

    Returns:
      [N, H, W, C] of the images' dtype.
    """
    height, width = images.shape[1:3]
    rows = _shifted(height, draws[:, 0], config.crop_padding)
    columns = _shifted(width, draws[:, 1], config.crop_padding)
    if config.flip:
        flipped = draws[:, 2, None] < 0.5
        columns = jnp.where(flipped, columns[:, ::-1], columns)
    return images[indices[:, None, None], rows[:, :, None], columns[:, None, :]]


def cutout(images: jax.Array, draws: jax.Array, size: int) -> jax.Array:
    """Zeroes a square of `size` pixels, centred anywhere and clipped at the borders.

    `images` are normalized, so zero is the mean; `draws` are uniform [N, 2].
    """
    masked = [
        _in_window(images.shape[axis], draws[:, axis - 1], size) for axis in (1, 2)
    ]
    hole = masked[0][:, :, None, None] & masked[1][:, None, :, None]
    return jnp.where(hole, 0, images)


def _shifted(size: int, draw: jax.Array, padding: int) -> jax.Array:
    """Pixel indices [N, size] of a crop from an axis with mirrored padding."""
    shift = jnp.floor(draw * (2 * padding + 1)).astype(jnp.int32) - padding
    index = jnp.abs(jnp.arange(size) + shift[:, None])
    return (size - 1) - jnp.abs((size - 1) - index)


def _in_window(size: int, draw: jax.Array, window: int) -> jax.Array:
    start = jnp.floor(draw * size).astype(jnp.int32)[:, None] - window // 2
    index = jnp.arange(size)
    return (index >= start) & (index < start + window)
