"""Random-resized crops: a random part of the image, resized to the whole."""

import jax
import jax.numpy as jnp
import numpy as np

from nfnet_jax.data.images.preprocess import TABLE, bicubic_uint8, keys_kernel

AREA = (0.08, 1.0)
"""Bounds of a crop's share of the image."""
ASPECT = (3 / 4, 4 / 3)
"""Bounds of its width / height."""


def crop_box(draws, height: int, width: int) -> tuple:
    """Boxes as TensorFlow's `sample_distorted_bounding_box` draws them.

    The aspect is uniform in `ASPECT`; given it, the height is uniform between those
    that `AREA` and the image allow; the place is uniform. Where the image is too long
    for some of the aspects, TensorFlow draws again, that is, uniformly among the
    others. Where it is too long for all, the box is the central square.

    Args:
      draws: uniform numbers in [0, 1) of NumPy or JAX, [..., 4] for row, column, aspect
        and height.
      height, width: of the image in pixels.

    Returns:
      top, left, rows and columns of the boxes, whole float32 numbers [...].
    """
    xp = draws.__array_namespace__()
    row, column, aspect, size = (draws[..., i] for i in range(4))
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


def host_crop_draws(seed: int, position: int) -> np.ndarray:
    """What `random_resized_crop` draws at a position: uniform float64 [5]."""
    # The words of a SeedSequence are the same in every version of NumPy.
    words = np.random.SeedSequence([seed, position]).generate_state(5, np.uint64)
    return (words >> np.uint64(11)) * 2.0**-53


def random_resized_crop(
    image: np.ndarray, size: int, draws: np.ndarray, flip: bool
) -> np.ndarray:
    """A random part of one image, resized to a square [HP, SP; Szegedy et al. 2015].

    Bicubic without antialiasing, as the published code resizes; with `flip`, half of
    the crops are mirrored.

    Args:
      image: uint8 [H, W, C].
      size: of the result, in pixels.
      draws: uniform numbers in [0, 1), [5] for row, column, flip, aspect and height.
      flip: whether to mirror.

    Returns:
      uint8 [size, size, C].
    """
    box = crop_box(draws[[0, 1, 3, 4]], *image.shape[:2])
    top, left, rows, columns = map(int, box)
    part = image[top : top + rows, left : left + columns]
    resized = bicubic_uint8(part, size, size)
    return resized[:, ::-1] if flip and draws[2] < 0.5 else resized


def resize_crops(
    images: jax.Array, box: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
) -> jax.Array:
    """Parts of images, each resized to the whole as `preprocess.bicubic` does.

    Args:
      images: uint8 [N, H, W, C].
      box: top, left, rows and columns of the parts [N].

    Returns:
      uint8 [N, H, W, C], rounded and clipped.
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
    """Weights of the old pixels of an axis in each new one: float32 [new, old]."""
    pixel = jnp.arange(size, dtype=jnp.float32)
    place = (pixel + 0.5) * (extent / size) - 0.5
    place = jnp.round(place * TABLE) / TABLE
    old = (pixel - start)[None]
    weights = keys_kernel(jnp.abs(place[:, None] - old))
    weights = jnp.where((old >= 0) & (old < extent), weights, 0)
    return weights / weights.sum(1, keepdims=True)
