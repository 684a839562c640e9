"""Features of an NF-ResNet, and a classifier of your own on them.

    python examples/features.py

The network is as it was initialized; `load_pretrained("nfnet_f0", "nfnet_f0")` gives a
trained one with its parameters. `features=True` gives what its classifier would get,
`return_stages=True` the signal after every stage too.
"""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nfnet_jax import create_model

digits = load_digits()
images = jnp.asarray(digits.images[..., None] / 8 - 1, jnp.float32)
labels = jnp.asarray(digits.target)
model = create_model("nf_wrn_10_1", num_classes=10)


@jax.jit
def describe(key, images):
    variables = model.init(key, images[:1])
    _, signals = model.apply(variables, images, features=True, return_stages=True)
    return signals[0].reshape(len(images), -1)


features = describe(jax.random.key(0), images)
train, test = slice(0, 1400), slice(1400, None)
weights = jnp.zeros((features.shape[1], 10))
optimizer = optax.adam(0.003)
state = optimizer.init(weights)


@jax.jit
def step(weights, state):
    def loss(weights):
        return optax.softmax_cross_entropy_with_integer_labels(
            features[train] @ weights, labels[train]
        ).mean()

    value, gradient = jax.value_and_grad(loss)(weights)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(weights, updates), state, value


for i in range(51):
    weights, state, loss = step(weights, state)
    if i % 10 == 0:
        print(f"step {i}  loss {loss:.4f}")
correct = (features[test] @ weights).argmax(-1) == labels[test]
print(f"test accuracy {correct.mean():.4f}")
