"""Float32 on purpose: the one place that says where, in networks of narrower images.

A network computes in the dtype of its images: every convolution, its gradients and
every signal [N, H, W, C] between them have it. For bfloat16 images these are float32:

- weight standardization, of float32 parameters: a kernel is cast last;
- what is broadcast over pixels, by `in_float32`: biases, gains, skip gains, β, scales
  of channel attention. Their gradients are sums over pixels, and in bfloat16 a sum of
  ones stops at 256;
- vectors [N, C] of pooled pixels: the means, the linear layers of channel attention and
  the classifier (small products, the only ones with float32 operands);
- BatchNorm, its statistics and the normalized signal, in the baselines;
- loss, metrics, gradients of parameters, the optimizer.

Wider images, float64, stay what they are everywhere.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def check_floating(dtype: Any) -> None:
    """Raises TypeError for whole numbers, into which no kernel can be cast."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"images or signals of dtype {jnp.dtype(dtype).name}, expected floating "
            "point; pixels are normalized first: (pixels / 255 - mean) / std"
        )


def at_least_float32(dtype: Any) -> jnp.dtype:
    """The dtype that numbers of `dtype` are summed in: float32, or the wider one.

    Raises:
      TypeError: `dtype` is none of floating point.
    """
    check_floating(dtype)
    return jnp.dtype(dtype if jnp.finfo(dtype).bits > 32 else jnp.float32)


def in_float32(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`function(x, *others)` computed in float32, with the result in the dtype of `x`.

    Gradients of `others`, which may be smaller in shape, are then summed in float32.
    For the gradient, arguments are kept in the dtypes that they come in. With whole
    numbers in `x` the result raises TypeError.
    """

    def compute(x: jax.Array, *others: jax.Array) -> jax.Array:
        wide = at_least_float32(x.dtype)
        arguments = (array.astype(wide) for array in (x, *others))
        return function(*arguments).astype(x.dtype)

    @functools.wraps(function)
    def keeping_dtype(x: jax.Array, *others: jax.Array) -> jax.Array:
        if x.dtype == at_least_float32(x.dtype):
            return compute(x, *others)
        return jax.checkpoint(compute, prevent_cse=False)(x, *others)

    return keeping_dtype


@in_float32
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x + bias, for x [..., C] and a bias [C] or a scalar."""
    return x + jnp.expand_dims(bias, range(x.ndim - bias.ndim))
