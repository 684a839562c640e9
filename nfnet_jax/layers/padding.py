"""Padding of images, in pixels."""

from jax import lax

Pairs = tuple[tuple[int, int], tuple[int, int]]
"""((top, bottom), (left, right))."""


def padding_pixels(
    padding: str | Pairs,
    image_size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
) -> Pairs:
    """`SAME` (as XLA and TensorFlow define it), `VALID`, or "symmetric", in pixels.

    "symmetric" is (size - 1) // 2 on every side, whatever the stride.
    """
    if padding == "symmetric":
        above, beside = ((size - 1) // 2 for size in window)
        return (above, above), (beside, beside)
    if not isinstance(padding, str):
        return padding
    pads = lax.padtype_to_pads(image_size, window, strides, padding)
    height, width = ((int(low), int(high)) for low, high in pads)
    return height, width
