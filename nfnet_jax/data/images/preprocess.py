"""Preparation of evaluation images: the crops and resizes of published networks.

Publishers of weights crop and resize in different ways, and a network loses accuracy
with any but its own. Papers: Brock, De, Smith 2021a, "Characterizing signal propagation
to close the performance gap in unnormalized ResNets", arXiv 2101.08692; Brock, De,
Smith, Simonyan 2021b, "High-performance large-scale image recognition without
normalization", arXiv 2102.06171.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from nfnet_jax.data.images.bicubic import bicubic
from nfnet_jax.utils.errors import nearest

# Longest side kept, in shorter sides; centre squares show little more than one.
_LONGEST = 64


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Maps an image uint8 [H, W, C] to float32 [size, size, C], normalized.

    `crop` is a key of `CROPS`, or the share of the resized shorter side that is shown
    (timm's crop_pct). `mean` and `std`: one number a channel, for pixels scaled to
    [0, 1]. With one channel, images are made grey first.

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
    """Centre of the whole image resized to a square 32 wider (Brock et al. 2021b).

    uint8 [H, W, C] -> float32 [size, size, C] in about 0 … 255.
    """
    return bicubic(image, size + 32, size + 32)[16 : 16 + size, 16 : 16 + size]


def crop_resize(image: np.ndarray, size: int) -> np.ndarray:
    """Centre square of size / (size + 32) of the shorter side, resized to `size`.

    NF-ResNets and NF-RegNets, Brock et al. 2021a.

    uint8 [H, W, C] -> float32 [size, size, C] in about 0 … 255.
    """
    height, width = image.shape[:2]
    scale = np.float32(min(height, width)) / np.float32(size + 32)
    # At least a pixel; the published code can come to none.
    side = max(1, int(scale * np.float32(size)))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return bicubic(image[top : top + side, left : left + side], size, size)


def resize_shorter_side(image: np.ndarray, size: int, share: float) -> np.ndarray:
    """Centre square of the image with shorter side floor(size / share): timm.

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
    """`resize_and_crop`, by which training data are prepared, of any aspect."""
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
"""Rules by name: `rule(image, size)`."""


def crop_to_size(image: np.ndarray, crop: str, size: int) -> np.ndarray:
    """Applies one of `CROPS`, rounded: uint8 [H, W, C] -> uint8 [size, size, C]."""
    square = CROPS[crop](image, size)
    if square.dtype == np.uint8:
        return square
    return np.clip(np.rint(square), 0, 255).astype(np.uint8)


def _without_far_ends(image: np.ndarray) -> np.ndarray:
    """Middle of a strip: resized whole, a long one would not fit in memory."""
    limit = _LONGEST * min(image.shape[:2])
    top, left = (max(0, side - limit) // 2 for side in image.shape[:2])
    return image[top:, left:][:limit, :limit]
