"""Arrays out of bytes that nobody vouches for."""

import math
import operator
from collections.abc import Sequence

import numpy as np

from nfnet_jax.utils.errors import UserError

_MOST_AXES = 32


def array_from_bytes(
    data: bytes | bytearray,
    dtype: np.dtype,
    shape: Sequence[int],
    *,
    fortran: bool = False,
) -> np.ndarray:
    """Array of `shape` that holds `data`: float32 for any floats, else as it is.

    Nothing is allocated that `data` does not fill. The array may share its memory.

    Raises:
      UserError: an array of anything but numbers and truth values.
      ValueError: `shape` and `dtype` are not those of `data`.
    """
    if dtype.kind not in "biuf":
        raise UserError(f"refused, an array of type {dtype.str}; expected numbers")
    if len(shape) > _MOST_AXES:
        raise ValueError(f"an array with {len(shape)} axes")
    shape = tuple(operator.index(length) for length in shape)
    if not all(0 <= length < 1 << 48 for length in shape):
        raise ValueError("an array of impossible shape")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array {dtype.str} of shape {shape}")
    flat = np.frombuffer(data, dtype)
    kept = np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")
    with np.errstate(all="ignore"):
        flat = flat.astype(kept, copy=False)
    return flat.reshape(shape, order="F" if fortran else "C")


def array_from_bfloat16(data: bytes | bytearray, shape: Sequence[int]) -> np.ndarray:
    """float32 array of `shape` from bfloat16 values, which are the upper halves of it.

    Raises:
      ValueError: `shape` is not that of `data`.
    """
    halves = array_from_bytes(data, np.dtype("<u2"), shape)
    return (halves.astype(np.uint32) << 16).view(np.float32)
