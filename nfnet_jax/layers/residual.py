"""What makes a residual branch well behaved: β, the skip gain, stochastic depth."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from nfnet_jax.layers.dropout import kept
from nfnet_jax.ops.precision import in_float32

BETAS = ("std", "var", "none")


def expected_std(depths: Sequence[int], alpha: float) -> list[list[float]]:
    """Predicted standard deviation of the signal *before* each block, stage by stage.

    Var(x_{l+1}) = Var(x_l) + α² with Var(x_0) = 1; the first block of a stage is a
    transition block, whose shortcut starts again at variance 1 [SP, section 4.1].
    """
    stages, variance = [], 1.0
    for depth in depths:
        stage = []
        for block in range(depth):
            stage.append(math.sqrt(variance))
            variance = (1.0 if block == 0 else variance) + alpha**2
        stages.append(stage)
    return stages


def beta_schedule(
    depths: Sequence[int], alpha: float, beta: str = "std"
) -> list[list[float]]:
    """β of every block, by which its input is divided, stage by stage.

    `beta`: "std", the predicted standard deviation, is right; "var" (its square, the
    literal reading of a misprint) and "none" (1) exist for ablations.

    Raises:
      ValueError: unknown beta.
    """
    if beta not in BETAS:
        raise ValueError(f"beta {beta!r}: expected one of {BETAS}")
    power = {"std": 1, "var": 2, "none": 0}[beta]
    return [[std**power for std in stage] for stage in expected_std(depths, alpha)]


class SkipGain(nn.Module):
    """Learned scalar that opens a residual branch [SI]: y = gain · x, gain₀ = 0.

    Input and output: any shape; the parameter `skip_gain` is a float32 scalar.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _scaled(
            x, self.param("skip_gain", nn.initializers.zeros, (), jnp.float32)
        )


class StochasticDepth(nn.Module):
    """Drops the whole branch of an example with probability `rate` in training.

    Input [N, ...] or [1, ...], output [N, ...]; `rate` is a number or a scalar array,
    `examples` are as in `kept`, 0, 1, ... by default. The survivors are not rescaled by
    the keep probability, as in [HP]. Needs the "dropout" key, unless the rate is the
    number 0: then the input is returned.
    """

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rate: ArrayLike,
        examples: jax.Array | None = None,
        *,
        train: bool,
    ) -> jax.Array:
        if not train or (isinstance(rate, int | float) and not rate):
            return x
        if examples is None:
            examples = jnp.arange(len(x))
        keep = kept(self.make_rng("dropout"), examples, 1 - jnp.asarray(rate))
        return _scaled(x, keep.reshape(-1, *[1] * (x.ndim - 1)))


@in_float32
def _scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    return scale * x
