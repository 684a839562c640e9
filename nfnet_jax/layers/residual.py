"""Residual block of normalizer-free networks: its equation, β, and the skip gain.

Brock, De, Smith 2021, "Characterizing signal propagation to close the performance gap
in unnormalized ResNets" (arXiv 2101.08692), section 4.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from nfnet_jax.layers.affine import as_affine
from nfnet_jax.layers.dropout import StochasticDepth
from nfnet_jax.ops.precision import Examples, Images, Scalar, in_float32, scaled

BETAS = ("std", "var", "none")
Nonlinearity = Callable[..., Images]
"""(x, *, train) -> y; may create modules, so that it can be a BatchNorm and a ReLU."""


class ResidualBlock(nn.Module):
    """Residual block: x ← shortcut + α · skip_gain · branch(activation(x) / β).

    A transition block has a module `shortcut` of activation(x) / β too, or of x with
    `raw_shortcut`; in all other blocks the shortcut is x. `skip_gain=False`: the branch
    has no learned scalar. In training it is dropped with the probability `drop_rate`;
    `examples` are as in `kept`. The branch is called as (x, scale, train=...) with
    scale = α · skip_gain, and multiplies its output by it.
    """

    branch: nn.Module
    activation: Nonlinearity
    alpha: float
    shortcut: nn.Module | None = None
    skip_gain: bool = True
    raw_shortcut: bool = False

    @nn.compact
    def __call__(
        self,
        x: Images,
        beta: Scalar,
        drop_rate: Scalar,
        examples: Examples = None,
        *,
        train: bool,
    ) -> Images:
        # `keep` has no axis of examples yet, so they are numbered here.
        if train and examples is None:
            examples = jnp.arange(len(x))
        # 1 where the branch of an example is kept, or else 0: [N or 1, 1, 1, 1].
        keep = jnp.ones((1, 1, 1, 1))
        keep = StochasticDepth()(keep, drop_rate, examples, train=train)
        scale = jnp.asarray(self.alpha)
        if self.skip_gain:
            scale = SkipGain(name="skip")(scale)

        @in_float32
        def branch_input(activated, beta):
            return activated / beta

        h = branch_input(self.activation(x, train=train), jnp.asarray(beta))
        shortcut = x
        if self.shortcut:
            shortcut = self.shortcut(x if self.raw_shortcut else h)
        branch = as_affine(self.branch(h, scale, train=train))
        return branch.times(keep).added_to(as_affine(shortcut))


def expected_std(depths: Sequence[int], alpha: float) -> list[list[float]]:
    """Predicted standard deviation of the signal *before* each block, stage by stage.

    Var(x_{l+1}) = Var(x_l) + α² with Var(x_0) = 1; the first block of a stage is a
    transition block, whose shortcut starts again at variance 1 (section 4.1).
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
    """Learned scalar that opens a residual branch: y = gain · x, gain₀ = 0.

    De, Smith 2020, "Batch normalization biases residual blocks towards the identity
    function in deep networks" (arXiv 2002.10444). The parameter `skip_gain` is a
    float32 scalar.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        gain = self.param("skip_gain", nn.initializers.zeros, (), jnp.float32)
        return scaled(x, gain)
