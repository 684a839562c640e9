"""Dropout and stochastic depth, independent of the batch and device of an example.

Every example draws from its own number, so that its loss stays the same wherever it is
computed.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from nfnet_jax.ops.precision import Examples, Scalar, scaled

Signal = Float[Array, "N ..."]


def kept(
    key: Key[Array, ""],
    examples: Int[Array, " N"],
    probability: Scalar,
    shape: tuple[int, ...] = (),
) -> Bool[Array, "N ..."]:
    """Bernoulli draws [N, *shape], True with `probability`.

    Each row is drawn from `key` and the number of its example.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, examples)
    return jax.vmap(lambda own: jax.random.bernoulli(own, probability, shape))(keys)


class Dropout(nn.Module):
    """In training, zeroes values with probability `rate`, the others × 1 / (1 − rate).

    `examples` are as in `kept`, 0, 1, ... by default. Needs the "dropout" key unless
    the rate is 0.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Signal, examples: Examples = None, *, train: bool) -> Signal:
        if not train or not self.rate:
            return x
        if examples is None:
            examples = jnp.arange(len(x))
        keep = kept(self.make_rng("dropout"), examples, 1 - self.rate, x.shape[1:])
        return jnp.where(keep, x / (1 - self.rate), 0)


class StochasticDepth(nn.Module):
    """Drops the whole branch of an example with probability `rate` in training.

    `examples` are as in `kept`, 0, 1, ... by default; an input [1, ...] is repeated for
    each. The survivors are not rescaled by the keep probability, as in Brock, De,
    Smith, Simonyan 2021, "High-performance large-scale image recognition without
    normalization" (arXiv 2102.06171). Needs the "dropout" key, unless the rate is the
    number 0: then the input is returned.
    """

    @nn.compact
    def __call__(
        self, x: Signal, rate: Scalar, examples: Examples = None, *, train: bool
    ) -> Signal:
        if not train or (isinstance(rate, int | float) and not rate):
            return x
        if examples is None:
            examples = jnp.arange(len(x))
        keep = kept(self.make_rng("dropout"), examples, 1 - jnp.asarray(rate))
        return scaled(x, keep.reshape(-1, *[1] * (x.ndim - 1)))
