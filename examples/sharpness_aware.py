"""SAM on any loss: of all minima it finds the flattest.

    python examples/sharpness_aware.py

The loss (u v - 1)² / 2 is 0 on a whole curve, and the curvature across it is u² + v²,
which is least at u = v = 1. Gradient descent stops where it first meets the curve.
"""

import jax
import jax.numpy as jnp
import optax

from nfnet_jax import sam_value_and_grad


def loss(params):
    return (params["u"] * params["v"] - 1) ** 2 / 2


def minimize(value_and_grad, steps=2000):
    params, optimizer = {"u": jnp.asarray(4.0), "v": jnp.asarray(0.1)}, optax.sgd(0.05)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        _, grads = value_and_grad(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return loss(params), params["u"] ** 2 + params["v"] ** 2


for name, value_and_grad in {
    "gradient descent": jax.value_and_grad(loss),
    "SAM": sam_value_and_grad(loss, rho=0.2),
}.items():
    print("{}: loss {:.6f}  curvature {:.3f}".format(name, *minimize(value_and_grad)))
