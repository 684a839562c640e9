"""Augmentation inside the compiled step: shifted crops, flips, cutout."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict


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


def alternate_flips(key: jax.Array, indices: jax.Array, epochs: jax.Array) -> jax.Array:
    """The draws for flips of `take_crops`, so that an image is mirrored every other
    epoch [Jordan 2024]: all its views are seen in any two.

    Which epochs, is drawn for each image of the data set. `indices` of the images and
    `epochs` [N]; returns float32 [N], 0 (flip) or 1.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
    first = jax.vmap(lambda key: jax.random.bits(key))(keys) % 2
    return ((first + epochs) % 2).astype(jnp.float32)


def cutout(images: jax.Array, draws: jax.Array, size: int) -> jax.Array:
    """Zeroes a square of `size` pixels, centred anywhere and clipped at the borders.

    `images` are normalized, so zero is the mean; `draws` are uniform [N, 2].
    """
    masked = [
        _in_window(images.shape[axis], draws[:, axis - 1], size) for axis in (1, 2)
    ]
    hole = masked[0][:, :, None, None] & masked[1][:, None, :, None]
    return jnp.where(hole, 0, images)


def shrink(images: jax.Array, size: int) -> jax.Array:
    """[N, H, W, C] -> [N, size, size, C] by linear interpolation with antialiasing."""
    shape = (len(images), size, size, images.shape[-1])
    return jax.image.resize(images, shape, "linear")


def _shifted(size: int, draw: jax.Array, padding: int) -> jax.Array:
    """Pixel indices [N, size] of a crop from an axis with mirrored padding."""
    shift = jnp.floor(draw * (2 * padding + 1)).astype(jnp.int32) - padding
    index = jnp.abs(jnp.arange(size) + shift[:, None])
    return (size - 1) - jnp.abs((size - 1) - index)


def _in_window(size: int, draw: jax.Array, window: int) -> jax.Array:
    start = jnp.floor(draw * size).astype(jnp.int32)[:, None] - window // 2
    index = jnp.arange(size)
    return (index >= start) & (index < start + window)
