"""A stage of residual blocks: a transition block and the others, scanned if many."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nfnet_jax.layers.activations import ScaledActivation, gain, scaled_activation
from nfnet_jax.layers.residual import SkipGain, StochasticDepth, beta_schedule
from nfnet_jax.layers.ws_conv import WSConv
from nfnet_jax.models.blocks import Conv, Nonlinearity, round_channels
from nfnet_jax.ops.precision import at_least_float32, in_float32


class Place(NamedTuple):
    """Where a block stands; `index` counts the blocks of the network from 0."""

    width_in: int
    width: int
    stride: int
    index: int  # type: ignore[assignment]


MakeBranch = Callable[[Place], nn.Module]
MakeShortcut = Callable[[int, int], nn.Module]
"""(output width, stride) -> projection shortcut."""
MakeBlock = Callable[..., nn.Module]
"""(branch, shortcut=None) -> residual block."""
PADDINGS = ("SAME", "symmetric")
UNROLLED_BLOCKS = 5
"""Further blocks of a stage up to which each is a module of its own, because a scan
copies what it saves for the gradient, and taking a kernel out of a stack copies it too.
On a CPU a training step of an NFNet-F0 takes 6 % less time for the one
(experiments/scanned_blocks), and 4 % less for the other (experiments/benchmarks)."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be varied in every normalizer-free network.

    `activation`, `gamma`: see `scaled_activation`. `alpha`: scale of the branches.
    `beta`: see `beta_schedule`. `stochastic_depth`: drop rate that the last block would
    have, growing linearly from 0 in the first. `drop_rate`: dropout before the
    classifier. `weight_standardization=False`: plain convolutions, an ablation.
    `skip_gain=False`: branches without a learned scalar, open from the start.
    `raw_shortcut=True`: projections of x instead of act(x) / β, an ablation.
    `pool_gain`: factor of the averages of pooled shortcuts; 2 keeps the variance of
    white noise.

    What timm does otherwise than the reference: `gamma_in_kernel=True`: γ multiplies
    every standardized kernel, stem and projections included, instead of following the
    activations. `padding`: "SAME", or "symmetric" whatever the stride. `var_eps`: see
    `standardize`.
    """

    activation: str = "relu"
    gamma: str = "exact"
    alpha: float = 0.2
    beta: str = "std"
    stochastic_depth: float = 0.0
    drop_rate: float = 0.0
    weight_standardization: bool = True
    skip_gain: bool = True
    raw_shortcut: bool = False
    pool_gain: float = 1.0
    gamma_in_kernel: bool = False
    padding: str = "SAME"
    var_eps: float = 0.0

    def __post_init__(self):
        gain(self.activation, self.gamma)
        if self.padding not in PADDINGS:
            raise ValueError(f"padding {self.padding!r}: expected one of {PADDINGS}")
        if not self.var_eps >= 0:
            raise ValueError(f"var_eps {self.var_eps}: expected at least 0")
        beta_schedule((1,), self.alpha, self.beta)
        for name in ("alpha", "pool_gain"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} {getattr(self, name)}: expected a positive number"
                )
        for name in ("stochastic_depth", "drop_rate"):
            rate = getattr(self, name)
            if not 0 <= rate < 1:
                raise ValueError(f"{name} {rate}: expected a rate in [0, 1)")

    def scaled_activation(self) -> ScaledActivation:
        gamma = "none" if self.gamma_in_kernel else self.gamma
        return scaled_activation(self.activation, gamma)

    def conv(self, **settings: Any) -> Conv:
        """The convolution of a normalizer-free network; `settings` of `WSConv`."""
        return functools.partial(
            WSConv,
            standardized=self.weight_standardization,
            gamma=gain(self.activation, self.gamma) if self.gamma_in_kernel else 1.0,
            var_eps=self.var_eps,
            padding=self.padding,
            pool_gain=self.pool_gain,
            **settings,
        )


class Block(nn.Module):
    """One residual block, x + α · skip_gain · branch(act(x) / β) [SP, section 4].

    A transition block has a `shortcut`, computed from act(x) / β too, or from x with
    `raw_shortcut`; in the others the shortcut is x itself. Input and output
    [N, H, W, C]; `examples` are as in `kept`.
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
        x: jax.Array,
        beta: ArrayLike,
        drop_rate: ArrayLike,
        examples: jax.Array | None = None,
        *,
        train: bool,
    ) -> jax.Array:
        h = _divide(self.activation(x, train=train), jnp.asarray(beta))
        projected = x if self.raw_shortcut else h
        shortcut = self.shortcut(projected) if self.shortcut else x
        y = self.branch(h, train=train)
        self.sow("signal", "res_avg_var", average_variance(y))
        x = _add_scaled(shortcut, y, self._scale(y, drop_rate, examples, train))
        sow_signal(self, x)
        return x

    def _scale(
        self,
        y: jax.Array,
        drop_rate: ArrayLike,
        examples: jax.Array | None,
        train: bool,
    ) -> jax.Array:
        """α · skip_gain, of dropped examples 0: [1, 1, 1, 1] or [N, 1, 1, 1].

        Factors that meet before they meet the branch cost no passes over it.
        """
        scale = jnp.full((1, 1, 1, 1), self.alpha)
        # An exported program, which is not for training, has any number of images.
        if train and examples is None:
            examples = jnp.arange(len(y))
        scale = StochasticDepth()(scale, drop_rate, examples, train=train)
        return SkipGain(name="skip")(scale) if self.skip_gain else scale


def make_block(options: Options, activation: Nonlinearity) -> MakeBlock:
    """What builds the pre-activation blocks of a network with these options.

    `activation` keeps the shape [N, H, W, C] of what it is called with.
    """
    return functools.partial(
        Block,
        activation=activation,
        alpha=options.alpha,
        skip_gain=options.skip_gain,
        raw_shortcut=options.raw_shortcut,
    )


class Stage(nn.Module):
    """`transition`, then `blocks` once for each further entry of `betas`.

    Both are called as (x, beta, drop_rate, examples, train=...). The further blocks
    differ only in β, drop rate and weights: they run in one scan, their parameters
    under `blocks` stacked on a leading layer axis, so that the compiled program does
    not grow with depth. Or `blocks` are as many modules, with their parameters under
    `blocks_0`, `blocks_1`, ..., faster for the few of a short stage.
    Input [N, H, W, C], output [N, H', W', C'].

    `remat`: the gradient computes the inside of every block again from its input, so
    that only the inputs are kept in memory (Chen et al. 2016, arXiv 1604.06174).
    """

    transition: nn.Module
    blocks: nn.Module | tuple[nn.Module, ...] | None
    betas: tuple[float, ...]
    drop_rates: tuple[float, ...]
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, examples: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        def run(block, x, beta, drop_rate):
            return block(x, beta, drop_rate, examples, train=train)

        run = nn.remat(run) if self.remat else run
        x = run(self.transition, x, self.betas[0], self.drop_rates[0])
        if self.blocks is None:
            return x
        if isinstance(self.blocks, tuple):
            rows = zip(self.blocks, self.betas[1:], self.drop_rates[1:], strict=True)
            for block, beta, drop_rate in rows:
                x = run(block, x, beta, drop_rate)
            return x
        betas, rates = self.betas[1:], self.drop_rates[1:]

        def run_layer(block, x, layer):
            beta, rate = layer
            return run(block, x, beta, rate if any(rates) else 0.0), None

        scan = nn.scan(
            run_layer,
            variable_axes={"params": 0, "signal": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
        )
        return scan(self.blocks, x, (jnp.asarray(betas), jnp.asarray(rates)))[0]


def parameters_of(stage: Mapping[str, Any], block: int) -> Any:
    """What belongs to one of the further blocks in a collection of a stage."""
    if (own := f"blocks_{block}") in stage:
        return stage[own]
    return jax.tree.map(lambda leaf: leaf[block], stage.get("blocks", {}))


class Layout(NamedTuple):
    """Widths and depths of the stages; `strides` are of their transition blocks."""

    stem_width: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    strides: tuple[int, ...]


def scaled_widths(
    widths: Sequence[int], multiplier: float, divisor: int | None = None
) -> tuple[int, ...]:
    """Every width times `multiplier`, rounded as `round_channels` does."""
    return tuple(round_channels(width * multiplier, divisor) for width in widths)


def residual_stages(
    layout: Layout,
    options: Options,
    block: MakeBlock,
    branch: MakeBranch,
    shortcut: MakeShortcut,
) -> tuple[Stage, ...]:
    """The stages of a network: every block is block(branch(place), shortcut)."""
    _check_layout(layout)
    betas = beta_schedule(layout.depths, options.alpha, options.beta)
    blocks = sum(layout.depths)
    rates = options.stochastic_depth * np.arange(blocks, dtype=float) / blocks
    stages, width_in, index = [], layout.stem_width, 0
    for width, depth, stride, stage_betas in zip(
        layout.widths, layout.depths, layout.strides, betas, strict=True
    ):
        transition = block(
            branch(Place(width_in, width, stride, index)),
            shortcut=shortcut(width, stride),
        )
        other = functools.partial(_plain_block, block, branch, width, index + 1)
        others = _further_blocks(other, depth - 1)
        stage_rates = tuple(map(float, rates[index : index + depth]))
        stages.append(Stage(transition, others, tuple(stage_betas), stage_rates))
        width_in, index = width, index + depth
    return tuple(stages)


def _plain_block(
    block: MakeBlock, branch: MakeBranch, width: int, index: int
) -> nn.Module:
    """A block without a projection, the `index`-th of the network."""
    return block(branch(Place(width, width, 1, index)))


def _further_blocks(
    make: Callable[[], nn.Module], count: int
) -> nn.Module | tuple[nn.Module, ...] | None:
    """`Stage.blocks` for so many of them."""
    if not count:
        return None
    if count > UNROLLED_BLOCKS:
        return make()
    return tuple(make() for _ in range(count))


def _check_layout(layout: Layout) -> None:
    if not len(layout.widths) == len(layout.depths) == len(layout.strides):
        raise ValueError(
            f"widths {layout.widths}, depths {layout.depths}: expected equally many, "
            f"for stages with strides {layout.strides}"
        )
    blocks, channels = min(layout.depths), min(layout.widths)
    if blocks < 1 or channels < 1:
        raise ValueError(
            f"{blocks} blocks and {channels} channels in a stage: expected at least one"
        )


def sow_signal(module: nn.Module, x: jax.Array) -> None:
    """Records the channel averages of squared mean and variance of x [N, H, W, C]."""
    means = x.mean((0, 1, 2), dtype=at_least_float32(x.dtype))
    module.sow("signal", "avg_sq_mean", jnp.square(means).mean())
    module.sow("signal", "avg_var", average_variance(x))


def average_variance(x: jax.Array) -> jax.Array:
    """Variance of each channel over [N, H, W], averaged over the channels."""
    return x.var((0, 1, 2), dtype=at_least_float32(x.dtype)).mean()


@in_float32
def _divide(x: jax.Array, beta: jax.Array) -> jax.Array:
    return x / beta


@in_float32
def _add_scaled(shortcut: jax.Array, y: jax.Array, scale: jax.Array) -> jax.Array:
    return shortcut + scale * y
