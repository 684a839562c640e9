"""Crops and flips: shifted within a mirrored border, or of a random part, resized.

Random-resized crops: Szegedy et al. 2015, "Going deeper with convolutions", arXiv
1409.4842. Alternating flips: Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single
GPU", arXiv 2404.00498.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nfnet_jax.data.batches import example_keys
from nfnet_jax.data.images.bicubic import TABLE, bicubic_uint8, keys_kernel

AREA = (0.08, 1.0)
"""Bounds of a resized crop's share of the image."""
ASPECT = (3 / 4, 4 / 3)
"""Bounds of its width / height."""


class CropDraws(NamedTuple):
    """Uniform numbers in [0, 1) for a crop, NumPy or JAX, [N] each or one of each.

    `aspect` and `height` are for resized crops only. An image is mirrored if `flip` is
    below 1/2.
    """

    row: Any
    column: Any
    flip: Any
    aspect: Any
    height: Any


def crop_draws(key: jax.Array, draw_ids: jax.Array) -> CropDraws:
    """Random numbers of `take_crops` for some draws [N], float32."""
    keys = example_keys(key, draw_ids)
    return CropDraws(*jax.vmap(lambda k: jax.random.uniform(k, (5,)))(keys).T)


def host_crop_draws(seed: int, draw_id: int) -> CropDraws:
    """Random numbers of `random_resized_crop` for one draw, float64."""
    # The words of a SeedSequence are the same in every version of NumPy.
    words = np.random.SeedSequence([seed, draw_id]).generate_state(5, np.uint64)
    return CropDraws(*((words >> np.uint64(11)) * 2.0**-53))


def alternate_flips(key: jax.Array, rows: jax.Array, epochs: jax.Array) -> jax.Array:
    """`CropDraws.flip` that mirrors an image every other epoch (Jordan 2024).

    So any two epochs show all views. The first side is drawn for each row of the data
    set. `rows` and `epochs` [N]; returns float32 [N], 0 (flip) or 1.
    """
    first = jax.vmap(lambda key: jax.random.bits(key))(example_keys(key, rows)) % 2
    return ((first + epochs.astype(first.dtype)) % 2).astype(jnp.float32)


def take_crops(
    images: jax.Array, rows: jax.Array, draws: CropDraws, augment: ConfigDict
) -> jax.Array:
    """Crops [N, H, W, C] of the images [M, H, W, C] at `rows` [N], flipped or not.

    `augment` is `config.data.augment`. `crop_padding` pixels of mirrored padding, and a
    flip, only change which pixel is read, so the padded images are never made.
    """
    height, width = images.shape[1:3]
    flipped = augment.flip & (draws.flip < 0.5)
    if augment.random_resized_crop:
        crops = resize_crops(images[rows], crop_box(draws, height, width))
        return jnp.where(flipped[:, None, None, None], crops[:, :, ::-1], crops)
    top = _shifted(height, draws.row, augment.crop_padding)
    left = _shifted(width, draws.column, augment.crop_padding)
    if augment.flip:
        left = jnp.where(flipped[:, None], left[:, ::-1], left)
    return images[rows[:, None, None], top[:, :, None], left[:, None, :]]


def _shifted(size: int, draw: jax.Array, padding: int) -> jax.Array:
    """Pixel indices [N, size] of a crop from an axis with mirrored padding."""
    shift = jnp.floor(draw * (2 * padding + 1)).astype(jnp.int32) - padding
    index = jnp.abs(jnp.arange(size)[None] + shift[:, None])
    return (size - 1) - jnp.abs((size - 1) - index)


# --- Random-resized crops -------------------------------------------------------------


def crop_box(draws: CropDraws, height: int, width: int) -> tuple:
    """Boxes as TensorFlow's `sample_distorted_bounding_box` draws them.

    The aspect is uniform in `ASPECT`; given it, the height is uniform between those
    that `AREA` and the image allow; the place is uniform. If the image is too long for
    some of the aspects, TensorFlow draws again, that is, uniformly among the others. If
    it is too long for all, the box is the central square. Returns top, left, rows and
    columns of the boxes, whole float32 numbers of the shape of the draws.
    """
    row, column, _, aspect, size = draws
    xp = aspect.__array_namespace__()
    # The least height of an aspect, from AREA[0], has to be possible.
    narrowest = max(ASPECT[0], AREA[0] * width / height)
    widest = min(ASPECT[1], width / (AREA[0] * height))
    if narrowest > widest:
        side = min(height, width)
        box = ((height - side) // 2, (width - side) // 2, side, side)
        return tuple(xp.full(aspect.shape, x, xp.float32) for x in box)
    aspect = narrowest + (widest - narrowest) * aspect
    least, most = (xp.sqrt(area * height * width / aspect) for area in AREA)
    least = xp.minimum(xp.ceil(least), height)
    most = xp.minimum(xp.minimum(most, width / aspect), height)
    most = xp.maximum(xp.floor(most), least)
    rows = least + xp.floor((most - least + 1) * size)
    columns = xp.clip(xp.round(rows * aspect), 1, width)
    top = xp.floor(row * (height - rows + 1))
    left = xp.floor(column * (width - columns + 1))
    return tuple(x.astype(xp.float32) for x in (top, left, rows, columns))


def random_resized_crop(
    image: np.ndarray, size: int, draws: CropDraws, flip: bool
) -> np.ndarray:
    """A random part of one image, resized to a square (Szegedy et al. 2015).

    Bicubic without antialiasing, as the published NFNet code resizes; with `flip`, half
    of the crops are mirrored. uint8 [H, W, C] -> uint8 [size, size, C].
    """
    top, left, rows, columns = map(int, crop_box(draws, *image.shape[:2]))
    part = image[top : top + rows, left : left + columns]
    resized = bicubic_uint8(part, size, size)
    return resized[:, ::-1] if flip and draws.flip < 0.5 else resized


def resize_crops(
    images: jax.Array, box: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
) -> jax.Array:
    """Parts of images uint8 [N, H, W, C], each resized to the whole by `bicubic_uint8`.

    `box`: top, left, rows and columns of the parts [N].
    """
    top, left, rows, columns = box
    down = jax.vmap(_weights, (0, 0, None))(top, rows, images.shape[1])
    across = jax.vmap(_weights, (0, 0, None))(left, columns, images.shape[2])
    exact = jax.lax.Precision.HIGHEST
    pixels = images.astype(jnp.float32)
    pixels = jnp.einsum("nrh,nhwc->nrwc", down, pixels, precision=exact)
    pixels = jnp.einsum("nsw,nrwc->nrsc", across, pixels, precision=exact)
    return jnp.clip(jnp.round(pixels), 0, 255).astype(jnp.uint8)


def _weights(start: jax.Array, extent: jax.Array, size: int) -> jax.Array:
    """Weights of the old pixels of an axis in each new one, float32 [new, old]."""
    pixel = jnp.arange(size, dtype=jnp.float32)
    place = (pixel + 0.5) * (extent / size) - 0.5
    place = jnp.round(place * TABLE) / TABLE
    old = (pixel - start)[None]
    weights = keys_kernel(jnp.abs(place[:, None] - old))
    weights = jnp.where((old >= 0) & (old < extent), weights, 0)
    return weights / weights.sum(1, keepdims=True)


def box_mask(
    shape: tuple[int, ...],
    top: jax.Array,
    left: jax.Array,
    bottom: jax.Array,
    right: jax.Array,
) -> jax.Array:
    """Mask bool [H, W] of a box that may reach beyond the image `shape`, (H, W, ...).

    Rows from `top` to before `bottom`, columns from `left` to before `right`.
    """
    row, column = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None]
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)
