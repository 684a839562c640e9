"""Differences between the versions of JAX that this package allows."""

import jax

try:
    from jax import enable_x64
except ImportError:  # before 0.8
    from jax.experimental import enable_x64  # type: ignore[attr-defined,no-redef]

__all__ = ["CPU_MULTIPLIES_BFLOAT16", "enable_x64"]

CPU_MULTIPLIES_BFLOAT16 = jax.__version_info__ >= (0, 9)
"""False if products of bfloat16 with a float32 result fail in some layouts."""
