"""Random-resized crops: a random part of the image, resized to the whole."""

import jax
import jax.numpy as jnp

from nfnet_jax.data.preprocess import TABLE, keys_kernel
from nfnet_jax.data.random_crop import AREA, ASPECT


def crop_box(draws, height: int, width: int) -> tuple:
    """Boxes as TensorFlow's `sample_distorted_bounding_box` draws them.

    The aspect is uniform in `ASPECT`; given it, the height is uniform between those
    that `AREA` and the image allow; the place is uniform.

    Args:
      draws: uniform numbers in [0, 1) of NumPy or JAX, [N, 4] for row, column, aspect
        and height.
      height, width: of the image in pixels.

    Returns:
      top, left, rows and columns of the boxes, whole float32 numbers [N].
    """
    xp = draws.__array_namespace__()
    row, column, aspect, size = (draws[:, i] for i in range(4))
    aspect = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * aspect
    least, most = (xp.sqrt(area * height * width / aspect) for area in AREA)
    most = xp.minimum(xp.minimum(most, width / aspect), xp.asarray(float(height)))
    rows = xp.clip(xp.round(least + (most - least) * size), 1, height)
    columns = xp.clip(xp.round(rows * aspect), 1, width)
    top = xp.floor(row * (height - rows + 1))
    left = xp.floor(column * (width - columns + 1))
    return tuple(x.astype(xp.float32) for x in (top, left, rows, columns))


def resize_crops(
    images: jax.Array, box: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
) -> jax.Array:
    """Parts of images, resized to the images' own size as `preprocess.bicubic` does.

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
    old = pixel - start
    weights = keys_kernel(jnp.abs(place[:, None] - old))
    weights = jnp.where((old >= 0) & (old < extent), weights, 0)
    return weights / weights.sum(1, keepdims=True)
