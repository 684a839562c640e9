"""Random-resized crops on the host, keyed by seed and position."""

import math

import numpy as np

from nfnet_jax.data.preprocess import bicubic_uint8

AREA = (0.08, 1.0)
"""Bounds of a crop's share of the image."""
ASPECT = (3 / 4, 4 / 3)
"""Bounds of its width / height."""
_ATTEMPTS = 10


def random_resized_crop(
    image: np.ndarray, size: int, draws: np.ndarray, flip: bool
) -> np.ndarray:
    """A random part of an image, resized to a square [HP, SP; Szegedy et al. 2015].

    Bicubic without antialiasing, as the published code resizes; with `flip`, half of
    the crops are mirrored.

    Args:
      image: uint8 [H, W, C].
      size: of the result, in pixels.
      draws: of `crop_draws`.
      flip: whether to mirror.

    Returns:
      uint8 [size, size, C].
    """
    top, left, height, width = crop_box(*image.shape[:2], draws)
    crop = image[top : top + height, left : left + width]
    resized = bicubic_uint8(crop, size, size)
    return resized[:, ::-1] if flip and draws[0] < 0.5 else resized


def crop_draws(seed: int, position: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for one crop: flip, top, left, height, then aspects."""
    # Raw bits of Philox are the same in every version of NumPy.
    raw = np.random.Philox(key=[seed, position]).random_raw(4 + _ATTEMPTS)
    return (raw >> np.uint64(11)) * 2.0**-53


def crop_box(height: int, width: int, draws: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels of a crop of an image.

    As TensorFlow's `sample_distorted_bounding_box` has it: the aspect ratio is uniform
    in `ASPECT`, the height uniform among those that keep the area in `AREA` and the
    crop inside. An image too long for any is cropped to its central square.
    """
    area = height * width
    _, top, left, size, *aspects = draws.tolist()
    for draw in aspects:
        aspect = ASPECT[0] + draw * (ASPECT[1] - ASPECT[0])
        low = math.ceil(math.sqrt(AREA[0] * area / aspect))
        high = min(int(math.sqrt(AREA[1] * area / aspect)), height, int(width / aspect))
        if low > high:
            continue
        rows = low + int(size * (high - low + 1))
        columns = max(1, min(width, round(rows * aspect)))
        return (
            int(top * (height - rows + 1)),
            int(left * (width - columns + 1)),
            rows,
            columns,
        )
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
