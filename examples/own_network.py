"""A residual network of your own without normalization, in your own optax loop.

    python examples/own_network.py

Kernels are standardized, activations scaled, the input of every block is divided by the
predicted standard deviation β, and gradients are clipped adaptively: all but those of
the classifier and of the skip gains, which start at 0 and would hardly leave it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nfnet_jax import (
    SkipGain,
    WSConv,
    adaptive_gradient_clipping,
    beta_schedule,
    scaled_activation,
)

ALPHA, BLOCKS = 0.2, 2
act = scaled_activation("relu")


class Network(nn.Module):
    """Images [N, H, W, C] -> logits [N, 10]."""

    @nn.compact
    def __call__(self, x):
        x = WSConv(16)(x)
        for beta in beta_schedule([BLOCKS], ALPHA)[0]:
            branch = WSConv(16)(act(x / beta))
            x = x + ALPHA * SkipGain()(branch)
        x = act(x).reshape(len(x), -1)
        return nn.Dense(10, kernel_init=nn.initializers.zeros, name="classifier")(x)


digits = load_digits()
images = jnp.asarray(digits.images[..., None] / 8 - 1, jnp.float32)
labels = jnp.asarray(digits.target)
model = Network()
params = model.init(jax.random.key(0), images[:1])["params"]
optimizer = optax.chain(
    adaptive_gradient_clipping(0.1, exclude=["classifier", "skip_gain"]),
    optax.sgd(0.1, momentum=0.9, nesterov=True),
)


@jax.jit
def step(params, state, images, labels):
    def loss(params):
        logits = model.apply({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value


state = optimizer.init(params)
for i in range(60):
    rows = jax.random.randint(jax.random.key(i), (128,), 0, len(images))
    params, state, loss = step(params, state, images[rows], labels[rows])
    if i % 10 == 0 or i == 59:
        print(f"step {i}  loss {loss:.4f}")
