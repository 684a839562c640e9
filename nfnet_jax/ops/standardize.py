"""Gradient of scaled weight standardization, written out.

For `layers.ws_conv.standardize`, Ŵ = gain · r · (W − mean) with r the reciprocal
norm. On a CPU the gradient that JAX derives takes ten times as long.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nfnet_jax.ops.precision import at_least_float32

EPS = 1e-4
FAN_IN = (0, 1, 2)
"""Axes of a kernel [KH, KW, C / groups, O] over which a filter extends."""
_by_filter = functools.partial(jnp.expand_dims, axis=FAN_IN)
"""[O] -> [1, 1, 1, O]."""


def with_fast_gradient(formula: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Returns `formula(kernel, gain, eps, var_eps)` with the gradient of this module.

    The result computes in float32 or wider. It raises ValueError for filters of one
    weight, which standardization turns into 0.
    """
    differentiable = jax.custom_vjp(formula, nondiff_argnums=(2, 3))
    differentiable.defvjp(_standardize_and_save, _gradients)

    @functools.wraps(formula)
    def standardize(kernel, gain, eps=EPS, var_eps=0.0):
        if math.prod(kernel.shape[:-1]) == 1:
            raise ValueError(
                f"kernel {kernel.shape} has fan-in 1: standardized, it is exactly 0; "
                "expected at least two weights per output channel"
            )
        dtype = at_least_float32(kernel.dtype)
        return differentiable(kernel.astype(dtype), gain.astype(dtype), eps, var_eps)

    return standardize


def _standardize_and_save(kernel, gain, eps, var_eps):
    # `kernel` and `gain` are saved here: returned from the jitted function they would
    # be copied.
    standardized, *own = _standardized(kernel, gain, eps, var_eps)
    return standardized, (kernel, gain, *own)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _standardized(kernel, gain, eps, var_eps):
    # As a matrix, or XLA writes W − mean to memory to sum its squares. Both moments are
    # those of the distances to the first weight of a filter: two sums in one pass, and
    # no cancellation where all weights of a filter are large.
    filters = kernel.reshape(-1, kernel.shape[-1])
    distances = filters - filters[:1]
    distance = distances.mean(0)
    mean = filters[0] + distance
    var = jnp.square(distances).mean(0) - jnp.square(distance)
    power = len(filters) * (var + var_eps)
    r = jax.lax.rsqrt(jnp.maximum(power, eps))
    standardized = (kernel - _by_filter(mean)) * _by_filter(gain * r)
    return standardized, mean, r, power > eps


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradients(eps, var_eps, saved, grad):
    """Gradients of W and gain: with n = r · (W − mean), ∂gain = Σ ∂Ŵ · n, and

    ∂W = gain · r · (∂Ŵ − mean(∂Ŵ) − n · ∂gain), without the last term at the floor
    of the norm.
    """
    kernel, gain, mean, r, above = saved
    total = grad.sum(FAN_IN)
    gain_grad = r * ((grad * kernel).sum(FAN_IN) - mean * total)
    curvature = jnp.where(above, r * gain_grad, 0.0)
    centred = grad - _by_filter(total / math.prod(kernel.shape[:-1]))
    along = (kernel - _by_filter(mean)) * _by_filter(curvature)
    return _by_filter(gain * r) * (centred - along), gain_grad
