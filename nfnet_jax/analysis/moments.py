"""Moments of a signal, and what averaging its neighbours would leave of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Moments(NamedTuple):
    """Averages over channels of the squared mean and of the variance of each [SP]."""

    sq_mean: jax.Array | float
    var: jax.Array | float


def moments(x: jax.Array) -> Moments:
    """Of x [N, H, W, C]; a channel's mean and variance are over N, H and W."""
    x = x.astype(jnp.float32)
    return Moments(jnp.square(x.mean((0, 1, 2))).mean(), x.var((0, 1, 2)).mean())


def pooled_share(x: jax.Array) -> jax.Array:
    """The share of its variance that x [N, H, W, C] is to keep in 2x2 averages.

    Var(mean of 2x2) = Var(x) · mean of the 4x4 matrix of the pixels' correlations:
    (1 + ρ(0, 1) + ρ(1, 0) + (ρ(1, 1) + ρ(1, -1)) / 2) / 4, a quarter for white noise,
    1 for what is constant in space. ρ is measured over all neighbours, not over the
    windows that pooling takes.
    """
    x = x.astype(jnp.float32)
    x = x - x.mean((0, 1, 2), keepdims=True)
    variance = jnp.square(x).mean()
    down, right = (x[:, 1:], x[:, :-1]), (x[:, :, 1:], x[:, :, :-1])
    diagonal = x[:, 1:, 1:], x[:, :-1, :-1]
    other = x[:, 1:, :-1], x[:, :-1, 1:]
    rho = [(a * b).mean() / variance for a, b in (down, right, diagonal, other)]
    return (1 + rho[0] + rho[1] + (rho[2] + rho[3]) / 2) / 4
