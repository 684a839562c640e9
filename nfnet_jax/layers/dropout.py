"""Dropout that an example carries along, whatever batch or device it is on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def kept(
    key: jax.Array,
    examples: jax.Array,
    probability: ArrayLike,
    shape: tuple[int, ...] = (),
) -> jax.Array:
    """Bernoulli draws, bool [N, *shape], each row from `key` and its example's number.

    `examples`: int or uint32 [N]. `probability` of True: a number or a scalar array.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, examples)
    return jax.vmap(lambda own: jax.random.bernoulli(own, probability, shape))(keys)


class Dropout(nn.Module):
    """In training, zeroes values with probability `rate`, the others × 1 / (1 − rate).

    Input and output [N, ...]; `examples` are as in `kept`, 0, 1, ... by default. Needs
    the "dropout" key unless the rate is 0.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: jax.Array, examples: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        if not train or not self.rate:
            return x
        if examples is None:
            examples = jnp.arange(len(x))
        keep = kept(self.make_rng("dropout"), examples, 1 - self.rate, x.shape[1:])
        return jnp.where(keep, x / (1 - self.rate), 0)
