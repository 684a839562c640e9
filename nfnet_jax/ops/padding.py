"""Windows over images: sizes, strides and padding, in pixels."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from jax import lax

Pairs = tuple[tuple[int, int], tuple[int, int]]
"""((top, bottom), (left, right))."""
Padding = str | int | Sequence[int | Sequence[int]]
"""A name of `PADDINGS`, or pixels: of every side, or by axis, or as `Pairs`."""
PADDINGS = ("SAME", "VALID", "symmetric")


def pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """`value` along height and width; a single number is both.

    Raises:
      ValueError: not one or two whole numbers of at least 1; `name` tells of what.
    """
    try:
        height, width = _twice(value)
        if min(pixels := (operator.index(height), operator.index(width))) >= 1:
            return pixels
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"{name} {value!r}: expected a whole number of at least 1, or two of them"
    )


def padding_pixels(
    padding: Padding,
    image_size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
) -> Pairs:
    """`SAME` (as XLA and TensorFlow define it), `VALID`, or "symmetric", in pixels.

    "symmetric" is (size - 1) // 2 on every side, whatever the stride.

    Raises:
      ValueError: another name, or numbers that are no `Padding`.
    """
    if isinstance(padding, str) and padding == "symmetric":
        above, beside = ((size - 1) // 2 for size in window)
        return (above, above), (beside, beside)
    if isinstance(padding, str) and padding in PADDINGS:
        pads = lax.padtype_to_pads(image_size, window, strides, padding)
        height, width = ((int(low), int(high)) for low, high in pads)
        return height, width
    try:
        (top, bottom), (left, right) = map(_twice, _twice(padding))
        index = operator.index
        pixels = (index(top), index(bottom)), (index(left), index(right))
        if min(map(min, pixels)) >= 0:
            return pixels
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"padding {padding!r}: expected one of {', '.join(PADDINGS)}, a number of "
        "pixels, or ((top, bottom), (left, right))"
    )


def _twice(value: Any) -> Any:
    """A single number twice; several as they are."""
    return value if isinstance(value, Iterable) else (value, value)
