"""Augmentation inside the compiled step, from drawn 8-bit images to normalized ones.

A new augmentation is a function here, a line of `augment_batch`, if need be one of
`check_augmentation`, and its key in `nfnet_jax.config.keys`.

Random erasing: Zhong et al. 2017, "Random erasing data augmentation", arXiv 1708.04896.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from nfnet_jax.data.augment.crops import box_mask
from nfnet_jax.data.augment.mixing import drawn_per_example, mix
from nfnet_jax.data.augment.randaugment import rand_augment
from nfnet_jax.data.batches import Batch, example_keys
from nfnet_jax.utils.errors import UserError

ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)

# Never renumber these: each is folded into an example's key, and the draws of every run
# depend on it. A new augmentation takes the next number.
MIXING, RANDAUGMENT, CUTOUT, ERASING = range(4)


def augment_batch(
    batch: Batch,
    key: jax.Array,
    augment: ConfigDict,
    train: ConfigDict,
    moments: tuple[ArrayLike, ArrayLike],
    num_classes: int,
) -> tuple[jax.Array, jax.Array]:
    """Mixes, distorts, normalizes and erases images, each by its key and id alone.

    `augment` and `train` are sections of the config, `moments` mean and standard
    deviation [C] of pixels scaled to [0, 1]. Returns normalized images float32
    [N, H, W, C], and class probabilities float32 [N, K] before label smoothing.
    """
    images, labels, example_ids = batch
    keys = example_keys(key, example_ids)
    targets = jax.nn.one_hot(labels, num_classes)
    if drawn_per_example(train) == 2:
        own = _fold_in(keys, MIXING)
        images, targets = mix(images, targets, example_ids, own, train)
    layers, magnitude = augment.randaugment.layers, augment.randaugment.magnitude
    if layers:
        images = rand_augment(images, _fold_in(keys, RANDAUGMENT), layers, magnitude)
    images = normalize(images, *moments)
    if augment.cutout:
        images = cutout(images, _uniform(keys, CUTOUT, 2), augment.cutout)
    if augment.erasing:
        images = erase(images, _uniform(keys, ERASING, 5), augment.erasing)
    return images, targets


def check_augmentation(
    augment: ConfigDict, image_shape: tuple[int, int, int], small_size: int | None
) -> None:
    """Raises UserError if images (H, W, C) cannot be augmented by `config.data.augment`
    or shrunk to `small_size`, `config.train.small_size`."""
    side, channels = min(image_shape[:2]), image_shape[-1]
    if augment.randaugment.layers and channels not in (1, 3):
        raise UserError(
            f"data.augment.randaugment.layers is {augment.randaugment.layers}, "
            f"expected 0 for images of {channels} channels, not 1 or 3"
        )
    for key, value, most in (
        ("data.augment.crop_padding", augment.crop_padding, side - 1),
        ("data.augment.cutout", augment.cutout, side),
        ("train.small_size", small_size or 0, side),
    ):
        if value > most:
            expected = "at most" if most == side else "less than"
            raise UserError(
                f"{key} is {value}, expected {expected} the {side} pixels of an "
                "image's side"
            )


def normalize(images: jax.Array, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """Maps uint8 [N, H, W, C] to float32 of mean 0 and variance 1 per channel."""
    mean, std = (
        jnp.asarray(moment, jnp.float32)[None, None, None] for moment in (mean, std)
    )
    return (images.astype(jnp.float32) / 255 - mean) / std


def cutout(images: jax.Array, draws: jax.Array, size: int) -> jax.Array:
    """Zeroes a square of `size` pixels, centred anywhere and clipped at the borders.

    `images` are normalized, so zero is the mean; `draws` are uniform [N, 2].
    """

    def hole(draw):
        shape = images.shape[1:3]
        start = jnp.floor(draw * jnp.array(shape, draw.dtype)).astype(jnp.int32)
        start -= size // 2
        return box_mask(shape, *start, *(start + size))

    return jnp.where(jax.vmap(hole)(draws)[..., None], 0, images)


def erase(images: jax.Array, draws: jax.Array, probability: float) -> jax.Array:
    """Random erasing: zeroes a rectangle in a share of the images.

    Its area is uniform between 2 % and a third of the image, the logarithm of its
    aspect uniform between those of 0.3 and 1 / 0.3; it lies anywhere within the image.
    `images` are normalized, so zero is the mean; `draws` are uniform [N, 5]: to erase
    or not, area, aspect, row, column.
    """
    holes = jax.vmap(erased_mask, (0, None))(draws[:, 1:], images.shape[1:3])
    holes &= (draws[:, 0] < probability)[:, None, None]
    return jnp.where(holes[..., None], 0, images)


def erased_mask(draws: jax.Array, shape: tuple[int, ...]) -> jax.Array:
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
    return box_mask(shape, *start, *(start + sides))


def shrink(images: jax.Array, size: int) -> jax.Array:
    """Resizes [N, H, W, C] to [N, size, size, C], linearly with antialiasing."""
    shape = (len(images), size, size, images.shape[-1])
    return jax.image.resize(images, shape, "linear")


def _fold_in(keys: jax.Array, number: int) -> jax.Array:
    """A key for each example [N] for the augmentation `number`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _uniform(keys: jax.Array, number: int, count: int) -> jax.Array:
    """Uniform numbers [N, count] for the augmentation `number`."""
    own = _fold_in(keys, number)
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(own)
