"""Augmentation inside the compiled step: crops, flips, cutout, random erasing."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from nfnet_jax.data.augment.resized_crop import crop_box, resize_crops
from nfnet_jax.data.augment.windows import window
from nfnet_jax.data.loading.batches import example_keys

ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)


def normalize(images: jax.Array, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """uint8 [N, H, W, C] -> float32 of mean 0 and variance 1 per channel."""
    mean, std = (
        jnp.asarray(moment, jnp.float32)[None, None, None] for moment in (mean, std)
    )
    return (images.astype(jnp.float32) / 255 - mean) / std


def crop_draws(key: jax.Array, positions: jax.Array) -> jax.Array:
    """What `take_crops` draws at the positions [N].

    Uniform numbers in [0, 1), float32 [N, 5], for row, column, flip, and of resized
    crops aspect and height.
    """
    return jax.vmap(lambda k: jax.random.uniform(k, (5,)))(example_keys(key, positions))


def take_crops(
    images: jax.Array, indices: jax.Array, draws: jax.Array, config: ConfigDict
) -> jax.Array:
    """Crops of some images, flipped or not.

    A crop with `config.crop_padding` pixels of mirrored padding, and a horizontal flip,
    only change which pixel is read, so the padded images are never made.

    Args:
      images: the data set [M, H, W, C].
      indices: examples to take [N].
      draws: of `crop_draws`.
      config: `config.data.augment`.

    Returns:
      [N, H, W, C] of the images' dtype.
    """
    height, width = images.shape[1:3]
    if config.random_resized_crop:
        box = crop_box(draws[:, (0, 1, 3, 4)], height, width)
        crops = resize_crops(images[indices], box)
        flipped = config.flip & (draws[:, 2] < 0.5)
        return jnp.where(flipped[:, None, None, None], crops[:, :, ::-1], crops)
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
    return ((first + epochs.astype(first.dtype)) % 2).astype(jnp.float32)


def cutout(images: jax.Array, draws: jax.Array, size: int) -> jax.Array:
    """Zeroes a square of `size` pixels, centred anywhere and clipped at the borders.

    `images` are normalized, so zero is the mean; `draws` are uniform [N, 2].
    """

    def hole(draw):
        shape = images.shape[1:3]
        start = jnp.floor(draw * jnp.array(shape, draw.dtype)).astype(jnp.int32)
        start -= size // 2
        return window(shape, *start, *(start + size))

    return jnp.where(jax.vmap(hole)(draws)[..., None], 0, images)


def erase(images: jax.Array, draws: jax.Array, probability: float) -> jax.Array:
    """Random erasing (Zhong et al. 2017, arXiv 1708.04896): a rectangle set to 0.

    Its area is uniform between 2 % and a third of the image, the logarithm of its
    aspect uniform between those of 0.3 and 1 / 0.3; it lies anywhere within the image.

    Args:
      images: normalized [N, H, W, C], so zero is the mean.
      draws: uniform numbers in [0, 1), [N, 5] for whether, area, aspect, row, column.
      probability: of an image to be changed.
    """
    holes = jax.vmap(erased_window, (0, None))(draws[:, 1:], images.shape[1:3])
    holes &= (draws[:, 0] < probability)[:, None, None]
    return jnp.where(holes[..., None], 0, images)


def erased_window(draws: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The rectangle of `erase`, bool [H, W], from its last four draws."""
    low, high = jnp.array(ERASED_AREA)
    area = (low + (high - low) * draws[0]) * shape[0] * shape[1]
    low, high = jnp.log(jnp.array(ERASED_ASPECT))
    aspect = jnp.exp(low + (high - low) * draws[1])
    limits = jnp.array(shape)
    sides = jnp.round(jnp.sqrt(jnp.stack([area * aspect, area / aspect])))
    sides = jnp.clip(sides.astype(jnp.int32), 1, limits)
    places = (limits - sides + 1).astype(draws.dtype)
    start = jnp.floor(draws[2:] * places).astype(jnp.int32)
    return window(shape, *start, *(start + sides))


def shrink(images: jax.Array, size: int) -> jax.Array:
    """[N, H, W, C] -> [N, size, size, C] by linear interpolation with antialiasing."""
    shape = (len(images), size, size, images.shape[-1])
    return jax.image.resize(images, shape, "linear")


def _shifted(size: int, draw: jax.Array, padding: int) -> jax.Array:
    """Pixel indices [N, size] of a crop from an axis with mirrored padding."""
    shift = jnp.floor(draw * (2 * padding + 1)).astype(jnp.int32) - padding
    index = jnp.abs(jnp.arange(size)[None] + shift[:, None])
    return (size - 1) - jnp.abs((size - 1) - index)
