"""Activations scaled by γ so that unit-normal inputs give unit variance.

Brock, De, Smith 2021, "Characterizing signal propagation to close the performance gap
in unnormalized ResNets" (arXiv 2101.08692).
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfnet_jax.ops.precision import in_float32_again
from nfnet_jax.utils.jax_versions import enable_x64

Signal = Float[Array, "..."]
Activation = Callable[[Signal], Signal]

ACTIVATIONS: dict[str, Activation] = {
    "celu": jax.nn.celu,
    "elu": jax.nn.elu,
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_erf": functools.partial(jax.nn.gelu, approximate=False),
    "identity": lambda x: x,
    "leaky_relu": jax.nn.leaky_relu,
    "log_sigmoid": jax.nn.log_sigmoid,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "soft_sign": jax.nn.soft_sign,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}

PUBLISHED_GAIN: dict[str, float] = {
    "celu": 1.270926833152771,
    "elu": 1.2716004848480225,
    "gelu": 1.7015043497085571,
    "gelu_erf": 1.7015043497085571,
    "identity": 1.0,
    "leaky_relu": 1.70590341091156,
    "log_sigmoid": 1.9193484783172607,
    "relu": 1.7139588594436646,
    "relu6": 1.7131484746932983,
    "selu": 1.0008515119552612,
    "sigmoid": 4.803835391998291,
    "silu": 1.7881293296813965,
    "soft_sign": 2.338853120803833,
    "softplus": 1.9203323125839233,
    "tanh": 1.5939117670059204,
}
"""Constants of the published code, estimated there by sampling (0.03-0.09 % high)."""

GAMMAS = ("exact", "published", "none")


def activation_gain(fn: Activation | str, gamma: str = "exact") -> float:
    """γ = 1 / sqrt(Var[fn(z)]), z ~ N(0, 1) (section 3).

    `fn` is a function or a name of `ACTIVATIONS`. `gamma`, for names: "exact",
    "published" (the constants that published weights were trained with) or "none"
    (γ = 1, an ablation).

    Raises:
      ValueError: unknown name or gamma; fn is constant, or not finite on [-12, 12].
    """
    if not isinstance(fn, str):
        return activation_variance(fn) ** -0.5
    if fn not in ACTIVATIONS:
        raise ValueError(f"activation {fn!r}: expected one of {sorted(ACTIVATIONS)}")
    if gamma not in GAMMAS:
        raise ValueError(f"gamma {gamma!r}: expected one of {GAMMAS}")
    if gamma == "exact":
        return activation_gain(ACTIVATIONS[fn])
    return PUBLISHED_GAIN[fn] if gamma == "published" else 1.0


@functools.cache
def activation_variance(fn: Activation, input_variance: float = 1.0) -> float:
    """Variance of fn(x), x ~ N(0, `input_variance`), by quadrature in float64.

    Gauss-Legendre panels of 1/32 standard deviation on [-12, 12] of them, so that a
    kink anywhere is as harmless as in the middle of a smooth function.

    Raises:
      ValueError: fn is constant, or not finite, on that interval.
    """
    edges = np.linspace(-12.0, 12.0, 24 * 32 + 1)
    nodes, weights = np.polynomial.legendre.leggauss(10)
    half = (edges[1] - edges[0]) / 2
    z = ((edges[:-1] + half)[:, None] + half * nodes).ravel()
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    weight = density * half * np.tile(weights, len(edges) - 1)
    x = z * input_variance**0.5
    with jax.ensure_compile_time_eval(), enable_x64(True):
        values = np.asarray(fn(jnp.asarray(x, jnp.float64)), np.float64)
    mean = weight @ values
    variance = weight @ np.square(values - mean)
    if not variance > 1e-12 * input_variance or not np.isfinite(variance):
        raise ValueError(
            f"{fn} has variance {variance:g} under a normal input of variance "
            f"{input_variance:g}"
        )
    return float(variance)


@dataclasses.dataclass(frozen=True)
class ScaledActivation:
    """Function x -> γ · g(x) of the activation `name` and the factor `gamma`.

    The dtype stays; of narrower numbers it is computed in float32, where the constants
    of GELU keep their digits. `train` makes no difference.
    """

    name: str
    gamma: float = 1.0

    def __call__(self, x: Signal, *, train: bool = False) -> Signal:
        @in_float32_again
        def scaled(x):
            y = ACTIVATIONS[self.name](x)
            return y if self.gamma == 1 else y * self.gamma

        return scaled(x)


def scaled_activation(name: str, gamma: str = "exact") -> ScaledActivation:
    """Returns the function x -> γ · g(x) of the activation `name`.

    `gamma`: see `activation_gain`.

    Raises:
      ValueError: unknown name or gamma.
    """
    return ScaledActivation(name, activation_gain(name, gamma))
