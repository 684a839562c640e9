"""Float32 computations in networks of narrower images: the list, and the functions.

A network computes in the dtype of its images: every convolution, its gradients and
every signal [N, H, W, C] between them have it. For bfloat16 images these are float32:

- weight standardization, of float32 parameters: a kernel is cast last;
- factors and terms that are broadcast over pixels, by `in_float32`: biases, gains, skip
  gains, β, scales of channel attention. Their gradients are sums over pixels, and in
  bfloat16 a sum of ones stops at 256;
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
from jaxtyping import Array, Bool, Float, Int

Images = Float[Array, "N H W C"]
"""Images, or a signal between two layers. In front of a grouped convolution its
channels may be split in groups, [N, H, W, G, C/G]."""
Kernel = Float[Array, "KH KW C/groups O"]
Scalar = float | Float[Array, ""]
Examples = Int[Array, " N"] | None
"""Numbers of examples; None for 0, 1, ..."""


def check_floating(dtype: Any) -> None:
    """Raises TypeError for whole numbers, to which no kernel can be cast."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"images or signals of dtype {jnp.dtype(dtype).name}, expected floating "
            "point; pixels are normalized first: (pixels / 255 - mean) / std"
        )


def at_least_float32(dtype: Any) -> jnp.dtype:
    """Dtype in which numbers of `dtype` are summed: float32, or the wider one.

    Raises:
      TypeError: `dtype` is not of floating point.
    """
    check_floating(dtype)
    return jnp.dtype(dtype if jnp.finfo(dtype).bits > 32 else jnp.float32)


def in_float32(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns `function(x, *others)` computed in float32, with results of x's dtype.

    Gradients of `others`, which may be smaller in shape, are then summed in float32.
    For the gradient, arguments are saved in their own dtypes. With whole numbers in `x`
    the returned function raises TypeError.
    """
    return _in_float32(function, functools.partial(jax.checkpoint, prevent_cse=False))


def in_float32_again(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`in_float32` for functions that are worth more memory than time.

    The compiler for GPUs would keep a float32 tanh from the forward pass for the
    gradient: there a barrier makes it compute such numbers again. The compiler for TPUs
    does so by itself, and a barrier would keep it from doing so within convolutions.
    """
    return _in_float32(function, _checkpoint_by_platform)


def _checkpoint_by_platform(compute: Callable[..., jax.Array]):
    again = jax.checkpoint(compute, prevent_cse=True)
    default = jax.checkpoint(compute, prevent_cse=False)

    def run(*arrays: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(
            *arrays, cuda=again, rocm=again, default=default
        )

    return run


def _in_float32(function, checkpoint):
    def compute(x: jax.Array, *others: jax.Array) -> jax.Array:
        wide = at_least_float32(x.dtype)
        arguments = (array.astype(wide) for array in (x, *others))
        return function(*arguments).astype(x.dtype)

    @functools.wraps(function)
    def keeping_dtype(x: jax.Array, *others: jax.Array) -> jax.Array:
        if x.dtype == at_least_float32(x.dtype):
            return compute(x, *others)
        return checkpoint(compute)(x, *others)

    return keeping_dtype


@in_float32
def add_bias(
    x: Float[Array, "... C"], bias: Float[Array, " C"] | Float[Array, ""]
) -> Float[Array, "... C"]:
    """Adds a bias to channels: x + bias. Channels of x may be split in groups."""
    channels = x.shape[3:] if x.ndim == 5 else bias.shape
    return x + bias.reshape((1,) * (x.ndim - len(channels)) + channels)


@in_float32
def scaled(
    x: Float[Array, "..."], factor: Float[Array, "..."] | Bool[Array, "..."]
) -> Float[Array, "..."]:
    """Multiplies x by a factor that broadcasts."""
    return factor * x
