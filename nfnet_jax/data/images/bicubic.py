"""TensorFlow's bicubic resize without antialiasing, to the last entry of its table.

Published networks were evaluated on images resized so.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TABLE = 1024
"""Steps between two pixels in TensorFlow's table of bicubic weights."""


def bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes an image [H, W, C] to float32 [height, width, C].

    Keys' kernel with a = -1/2 between pixel centres; neighbours beyond the border have
    no weight. Overshoots stay.
    """
    return _upright(_resized_columns(image, height, width))


def bicubic_uint8(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`bicubic`, rounded and clipped to uint8."""
    columns = _resized_columns(image, height, width)
    np.clip(np.rint(columns, out=columns), 0, 255, out=columns)
    return _upright(columns.astype(np.uint8))


def _resized_columns(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resized image in column order, float32 [width, C, height]."""
    old_height, old_width, channels = image.shape
    lines = image.astype(np.float32).reshape(old_height, -1)
    lines = _interpolation(old_height, height) @ lines
    columns = lines.reshape(height, old_width, channels).transpose(1, 2, 0)
    columns = _interpolation(old_width, width) @ columns.reshape(old_width, -1)
    return columns.reshape(width, channels, height)


def _upright(columns: np.ndarray) -> np.ndarray:
    """Transposes [W, C, H] to [H, W, C], channel by channel: twice as fast in NumPy."""
    width, channels, height = columns.shape
    image = np.empty((height, width, channels), columns.dtype)
    for channel in range(channels):
        image[..., channel] = columns[:, channel].T
    return image


@functools.lru_cache(1024)
def _interpolation(old: int, new: int) -> "csr_array":
    """Sparse matrix [new, old] that resizes an axis, four weights a row."""
    # Imported here: most runs resize nothing and need not wait for SciPy.
    from scipy.sparse import csr_array

    indices, weights = _neighbours(old, new)
    starts = np.arange(0, 4 * new + 1, 4, dtype=np.int32)
    indices = indices.T.ravel().astype(np.int32)
    return csr_array((weights.T.ravel(), indices, starts), shape=(new, old))


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and float32 weights of the four old pixels of each new one, [4, new]."""
    scale = np.float32(old) / np.float32(new)
    place = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale
    place -= np.float32(0.5)
    first = np.floor(place)
    offset = np.rint((place - first) * TABLE) / TABLE
    index = first.astype(int) + np.arange(-1, 3)[:, None]
    weights = keys_kernel(np.abs(offset - np.arange(-1, 3)[:, None]))
    weights = np.where((index >= 0) & (index < old), weights, 0)
    weights /= weights.sum(axis=0)
    return np.clip(index, 0, old - 1), weights.astype(np.float32)


def keys_kernel(distance):
    """Keys' cubic kernel, a = -1/2, at NumPy or JAX distances of at least 0."""
    xp = distance.__array_namespace__()
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return xp.where(distance < 1, near, xp.where(distance < 2, far, 0))
