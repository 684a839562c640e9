"""From an image of any size to what a network was evaluated on.

Publishers of weights differ in the part of the image that they show and in how they
resize it, and a network loses accuracy where it sees another than its own.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from nfnet_jax.utils.errors import nearest

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TABLE = 1024
"""Steps between two pixels in TensorFlow's table of weights of its bicubic resize."""
# Times the shorter side; centre squares show once or a little more.
_LONGEST = 64


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """image uint8 [H, W, C] -> float32 [size, size, C], normalized.

    `crop` is a key of `CROPS`, or the share of the resized shorter side that is shown
    (timm's crop_pct). `mean` and `std`: one number for each channel, of pixels that are
    scaled to [0, 1]. One channel: the image is made grey first.

    Raises:
      ValueError: an unknown `crop`, or a share that is not in (0, 1].
    """

    size: int
    crop: str | float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        if isinstance(self.crop, str) and self.crop not in CROPS:
            expected = f"one of {', '.join(CROPS)}{nearest(self.crop, CROPS)}"
            raise ValueError(f"crop {self.crop!r}: expected {expected}")
        if not isinstance(self.crop, str) and not 0 < self.crop <= 1:
            raise ValueError(f"crop {self.crop}: expected a share in (0, 1]")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if len(self.mean) == 1 and image.shape[-1] != 1:
            image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
        if isinstance(self.crop, str):
            square = CROPS[self.crop](image, self.size)
        else:
            square = resize_shorter_side(image, self.size, self.crop)
        mean, std = (np.asarray(m, np.float32) for m in (self.mean, self.std))
        return (square.astype(np.float32) / 255 - mean) / std


def resize_crop_32(image: np.ndarray, size: int) -> np.ndarray:
    """NFNets [HP]: the whole image resized to a square 32 wider, its centre shown.

    uint8 [H, W, C] -> float32 [size, size, C] in about 0 … 255.
    """
    return bicubic(image, size + 32, size + 32)[16 : 16 + size, 16 : 16 + size]


def crop_resize(image: np.ndarray, size: int) -> np.ndarray:
    """NF-ResNets, NF-RegNets [SP]: size / (size + 32) of the shorter side, resized.

    uint8 [H, W, C] -> float32 [size, size, C] in about 0 … 255.
    """
    height, width = image.shape[:2]
    scale = np.float32(min(height, width)) / np.float32(size + 32)
    # At least a pixel, which the published code does not see to.
    side = max(1, int(scale * np.float32(size)))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return bicubic(image[top : top + side, left : left + side], size, size)


def resize_shorter_side(image: np.ndarray, size: int, share: float) -> np.ndarray:
    """timm: shorter side resized to floor(size / share), the centre square shown.

    Bicubic by Pillow, which smooths where it shrinks. uint8 [H, W, C] with C of 1 or 3
    -> uint8 [size, size, C].
    """
    image = _without_far_ends(image)
    height, width, channels = image.shape
    side, shorter = math.floor(size / share), min(height, width)
    height, width = side * height // shorter, side * width // shorter
    pixels = Image.fromarray(image[..., 0] if channels == 1 else image)
    pixels = pixels.resize((width, height), Image.Resampling.BICUBIC)
    top, left = round((height - size) / 2), round((width - size) / 2)
    square = pixels.crop((left, top, left + size, top + size))
    return np.asarray(square).reshape(size, size, channels)


def training(image: np.ndarray, size: int) -> np.ndarray:
    """As this project prepares its training data: see `resize_and_crop`."""
    return resize_and_crop(_without_far_ends(image), size)


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the shorter side to `size` pixels (bicubic) and crops the centre square.

    `image`: uint8 [H, W, C] with C of 1, 3 or 4; returns uint8 [size, size, C].
    """
    height, width, channels = image.shape
    if height == width == size:
        return image
    scale = size / min(height, width)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    pixels = image[..., 0] if channels == 1 else image
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    square = resized.crop((left, top, left + size, top + size))
    return np.asarray(square).reshape(size, size, channels)


CROPS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "resize_crop_32": resize_crop_32,
    "crop_resize": crop_resize,
    "training": training,
}
"""The rules by name."""


def crop_to_size(image: np.ndarray, crop: str, size: int) -> np.ndarray:
    """By one of `CROPS`, rounded: uint8 [H, W, C] -> uint8 [size, size, C]."""
    square = CROPS[crop](image, size)
    if square.dtype == np.uint8:
        return square
    return np.clip(np.rint(square), 0, 255).astype(np.uint8)


def bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """TensorFlow 2's bicubic resize without antialiasing, to the last table entry.

    Keys' kernel with a = -1/2 between pixel centres; neighbours beyond the border have
    no weight. Overshoots stay. [H, W, C] -> float32 [height, width, C].
    """
    return _upright(_resized_columns(image, height, width))


def bicubic_uint8(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """As `bicubic`, rounded and clipped to uint8."""
    columns = _resized_columns(image, height, width)
    np.clip(np.rint(columns, out=columns), 0, 255, out=columns)
    return _upright(columns.astype(np.uint8))


def _resized_columns(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The resized image column by column, float32 [width, C, height]."""
    old_height, old_width, channels = image.shape
    lines = image.astype(np.float32).reshape(old_height, -1)
    lines = _interpolation(old_height, height) @ lines
    columns = lines.reshape(height, old_width, channels).transpose(1, 2, 0)
    columns = _interpolation(old_width, width) @ columns.reshape(old_width, -1)
    return columns.reshape(width, channels, height)


def _upright(columns: np.ndarray) -> np.ndarray:
    """[W, C, H] -> [H, W, C]; channel by channel, which NumPy does twice as fast."""
    width, channels, height = columns.shape
    image = np.empty((height, width, channels), columns.dtype)
    for channel in range(channels):
        image[..., channel] = columns[:, channel].T
    return image


@functools.lru_cache(1024)
def _interpolation(old: int, new: int) -> "csr_array":
    """The matrix [new, old] that resizes an axis, four weights a row."""
    # Here, because most runs resize nothing and start without waiting for it.
    from scipy.sparse import csr_array

    indices, weights = _neighbours(old, new)
    starts = np.arange(0, 4 * new + 1, 4, dtype=np.int32)
    indices = indices.T.ravel().astype(np.int32)
    return csr_array((weights.T.ravel(), indices, starts), shape=(new, old))


def _without_far_ends(image: np.ndarray) -> np.ndarray:
    """The middle of a strip: resized whole, a long one would not fit in memory."""
    limit = _LONGEST * min(image.shape[:2])
    top, left = (max(0, side - limit) // 2 for side in image.shape[:2])
    return image[top:, left:][:limit, :limit]


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each new pixel the four old ones: indices and float32 weights, [4, new]."""
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
    """Keys' cubic kernel, a = -1/2, at distances of at least 0, of NumPy or JAX."""
    xp = distance.__array_namespace__()
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return xp.where(distance < 1, near, xp.where(distance < 2, far, 0))
