"""The sixteen distortions of RandAugment, as the published NFNet code computes them.

Eight of them map every pixel value by a table, five read pixels elsewhere, two blend
the image with a degenerate one, one covers a square. The level of a distortion is its
magnitude / 10. All work on one image uint8 [H, W, C] with C of 1 or 3.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfnet_jax.data.augment.crops import box_mask

FILL = 128
"""Pixel value of areas that a geometric distortion uncovers, and of the square."""
TRANSLATION = 100
"""Pixels at level 1, whatever the size of the image."""
COVERED = 40
"""Half of the square's side in pixels at level 1."""
_VALUES = np.arange(256)


def blend(degenerate: jax.Array, image: jax.Array, level: float) -> jax.Array:
    """Blend degenerate + factor · (image − degenerate), clipped, fraction dropped.

    The factor is 1.8 · level + 0.1; above 1 it extrapolates. Whole magnitudes make it a
    whole number of fiftieths, so that nothing is rounded.
    """
    fiftieths = round(90 * level + 5)
    start = degenerate.astype(jnp.int32)
    return _clip((50 * start + fiftieths * (image.astype(jnp.int32) - start)) // 50)


# --- Tables: pixel values after a distortion, uint8 [256] or [C, 256] ----------------


def _auto_contrast(image: jax.Array, level: float) -> jax.Array:
    """Table from the darkest value to 0 and the brightest to 255, in each channel.

    In whole numbers; the published code computes fractions, and may be a count lower.
    """
    low, high = (f(image, axis=(0, 1)).astype(jnp.int32) for f in (jnp.min, jnp.max))
    low, high = low[:, None], high[:, None]
    values = jnp.asarray(_VALUES)[None]
    stretched = (values - low) * 255 // jnp.maximum(high - low, 1)
    return _clip(jnp.where(high > low, stretched, values))


def _equalize(image: jax.Array, level: float) -> jax.Array:
    """Table to about as many pixels of every value, in each channel."""
    channels = jnp.arange(image.shape[-1])
    zeros = jnp.zeros((image.shape[-1], 256), jnp.int32)
    counts = zeros.at[jnp.broadcast_to(channels, image.shape), image].add(1)
    brightest = jnp.max(image, axis=(0, 1))
    step = (counts.sum(axis=1) - counts[channels, brightest]) // 255
    step = step[:, None]
    below = jnp.cumsum(counts, axis=1) - counts
    values = jnp.asarray(_VALUES)[None]
    table = jnp.where(values == 0, 0, (below + step // 2) // jnp.maximum(step, 1))
    return jnp.where(step > 0, jnp.minimum(table, 255), values).astype(jnp.uint8)


def _invert(image: jax.Array, level: float) -> jax.Array:
    return jnp.asarray(255 - _VALUES, jnp.uint8)


def _posterize(image: jax.Array, level: float) -> jax.Array:
    """Table that keeps the highest bits, at least one."""
    dropped = min(8 - int(level * 4), 7)
    return jnp.asarray(_VALUES >> dropped << dropped, jnp.uint8)


def _solarize(image: jax.Array, level: float) -> jax.Array:
    """Table that inverts values from a threshold on.

    The threshold is an 8-bit number in the published code: at magnitude 10 it is 256,
    which becomes 0 and inverts everything, at 15 it is 384, which becomes 128.
    """
    threshold = int(level * 256) % 256
    return jnp.asarray(np.where(_VALUES < threshold, _VALUES, 255 - _VALUES), jnp.uint8)


def _solarize_add(image: jax.Array, level: float) -> jax.Array:
    """Table that raises values below 128."""
    raised = np.minimum(_VALUES + int(level * 110), 255)
    return jnp.asarray(np.where(_VALUES < 128, raised, _VALUES), jnp.uint8)


def _contrast(image: jax.Array, level: float) -> jax.Array:
    """Table of a blend with a constant image.

    The published code means the mean grey value and computes pixels / 256: its
    histogram is summed without the values.
    """
    pixels = image.shape[0] * image.shape[1]
    constant = jnp.full(256, min(pixels // 256, 255))
    return blend(constant, jnp.asarray(_VALUES), level)


def _brightness(image: jax.Array, level: float) -> jax.Array:
    """Table of a blend with black."""
    return blend(jnp.zeros(256), jnp.asarray(_VALUES), level)


def keep_values(image: jax.Array, level: float) -> jax.Array:
    """The table that changes nothing."""
    return jnp.asarray(_VALUES, jnp.uint8)


TABLES: dict[str, Callable[[jax.Array, float], jax.Array]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Contrast": _contrast,
    "Brightness": _brightness,
}
"""Functions table(image, level) by the distortion's name."""


def look_up(image: jax.Array, table: jax.Array) -> jax.Array:
    """Replaces every value by its entry in `table`, uint8 [C, 256]."""
    return table[jnp.arange(image.shape[-1]), image]


# --- Maps: the place (x, y) where a pixel is read, float32 [2, 3] --------------------


def _rotate(level: float, sign: int, height: int, width: int) -> np.ndarray:
    """Rotation about the centre, 30° at level 1."""
    angle = np.float32(sign * math.radians(30 * level))
    cos, sin = np.cos(angle), np.sin(angle)
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    shift_x = (right - (cos * right - sin * bottom)) / 2
    shift_y = (bottom - (sin * right + cos * bottom)) / 2
    return np.array([[cos, -sin, shift_x], [sin, cos, shift_y]], np.float32)


def _shear_x(level: float, sign: int, height: int, width: int) -> np.ndarray:
    """Shear of 0.3 pixels a row at level 1; the top row stays."""
    return np.array([[1, sign * level * 0.3, 0], [0, 1, 0]], np.float32)


def _shear_y(level: float, sign: int, height: int, width: int) -> np.ndarray:
    """Shear of 0.3 pixels a column at level 1; the left column stays."""
    return np.array([[1, 0, 0], [sign * level * 0.3, 1, 0]], np.float32)


def _translate_x(level: float, sign: int, height: int, width: int) -> np.ndarray:
    return np.array([[1, 0, sign * level * TRANSLATION], [0, 1, 0]], np.float32)


def _translate_y(level: float, sign: int, height: int, width: int) -> np.ndarray:
    return np.array([[1, 0, 0], [0, 1, sign * level * TRANSLATION]], np.float32)


def keep_places(level: float, sign: int, height: int, width: int) -> np.ndarray:
    """The map that changes nothing."""
    return np.eye(2, 3, dtype=np.float32)


MAPS: dict[str, Callable[[float, int, int, int], np.ndarray]] = {
    "Rotate": _rotate,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
}
"""Functions map(level, sign, height, width) by the distortion's name; sign is ±1."""


class Places(NamedTuple):
    """Products of a map with every column and row; a place is their sum, in this order.

    `across` float32 [..., 2, W], `down` [..., 2, H], `start` [..., 2].
    """

    across: np.ndarray
    down: np.ndarray
    start: np.ndarray


def places(maps: np.ndarray, height: int, width: int) -> Places:
    """Places of maps float32 [..., 2, 3].

    Multiplied in NumPy: a compiled program fuses a multiplication with an addition and
    rounds otherwise, and shear has many places halfway between two pixels.
    """
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return Places(maps[..., 0, None] * x, maps[..., 1, None] * y, maps[..., 2])


def move(image: jax.Array, places: Places) -> jax.Array:
    """Reads every pixel at its place, rounded; `FILL` outside the image."""
    height, width, channels = image.shape
    # Rounds halves away from zero, as TensorFlow does and jnp.round does not.
    column, row = (
        jax.lax.round(across[None] + down[:, None] + start).astype(jnp.int32)
        for across, down, start in zip(*places, strict=True)
    )
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = jnp.where(inside, row * width + column, 0)
    moved = image.reshape(-1, channels)[index]
    return jnp.where(inside[..., None], moved, FILL).astype(jnp.uint8)


# --- Others ---------------------------------------------------------------------------


def color(image: jax.Array, level: float) -> jax.Array:
    """Blends with the grey image: 0.2989 red + 0.5870 green + 0.1140 blue.

    Grey is scaled by 255.5 / 255 before the fraction is dropped, as TensorFlow rounds;
    in whole numbers, where the published code computes fractions.
    """
    if image.shape[-1] == 1:
        return image
    red, green, blue = jnp.moveaxis(image.astype(jnp.int32), -1, 0)
    grey = (2989 * red + 5870 * green + 1140 * blue) * 511 // (10_000 * 510)
    return blend(grey[..., None], image, level)


def sharpness(image: jax.Array, level: float) -> jax.Array:
    """Blends with the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13, except the border.

    In whole numbers; the published code sums fractions, and may be a count lower.
    """
    height, width, _ = image.shape
    wide = image.astype(jnp.int32)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * wide[1:-1, 1:-1]
    inner = (total // 13).astype(jnp.uint8)
    smooth = image.at[1 : height - 1, 1 : width - 1].set(inner)
    return blend(smooth, image, level)


def cover(image: jax.Array, centre: jax.Array, level: float) -> jax.Array:
    """Covers a square about the pixel `centre`, int32 (row, column), with `FILL`."""
    half = int(level * COVERED)
    hole = box_mask(image.shape, *(centre - half), *(centre + half))
    return jnp.where(hole[..., None], jnp.uint8(FILL), image)


def _clip(values: jax.Array) -> jax.Array:
    return jnp.clip(values, 0, 255).astype(jnp.uint8)
