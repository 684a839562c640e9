"""Stages of residual blocks: a transition block and the others, scanned if many."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nfnet_jax.layers.residual import beta_schedule
from nfnet_jax.models.blocks import round_channels
from nfnet_jax.models.variant import Options
from nfnet_jax.ops.precision import Examples, Images


class Place(NamedTuple):
    """Place of a block; `index` counts the blocks of the network from 0."""

    width_in: int
    width: int
    stride: int
    index: int  # type: ignore[assignment]


MakeBranch = Callable[[Place], nn.Module]
MakeShortcut = Callable[[int, int], nn.Module]
"""(output width, stride) -> projection shortcut."""
MakeBlock = Callable[..., nn.Module]
"""(branch, shortcut=None) -> residual block."""
UNROLLED_BLOCKS = 5
"""Stages with at most so many blocks after their transition are unrolled. Without the
scan, which copies what it saves for the gradient, a training step of an NFNet-F0 takes
6 % less time on a CPU (experiments/scanned_blocks); without the stack, out of which
kernels are copied, another 4 % less (experiments/benchmarks)."""


class Stage(nn.Module):
    """Stage: `transition`, then `blocks` once for each further entry of `betas`.

    Both are called as (x, beta, drop_rate, examples, train=...). The further blocks
    differ only in β, drop rate and weights: they run in one scan, their parameters
    under `blocks` stacked on a leading layer axis, so that the compiled program does
    not grow with depth. Or `blocks` are as many modules, with their parameters under
    `blocks_0`, `blocks_1`, ..., faster for the few of a short stage.

    `remat`: the gradient computes the inside of every block again from its input, so
    that only the inputs are kept in memory (Chen, Xu, Zhang, Guestrin 2016, "Training
    deep nets with sublinear memory cost", arXiv 1604.06174).
    """

    transition: nn.Module
    blocks: nn.Module | tuple[nn.Module, ...] | None
    betas: tuple[float, ...]
    drop_rates: tuple[float, ...]
    remat: bool = False

    def block(self, index: int) -> Any:
        """Returns the module of the block `index`, 0 for the transition."""
        if not index:
            return self.transition
        return self.blocks[index - 1] if isinstance(self.blocks, tuple) else self.blocks

    @nn.compact
    def __call__(self, x: Images, examples: Examples = None, *, train: bool) -> Images:
        def run(block, x, beta, drop_rate):
            return block(x, beta, drop_rate, examples, train=train)

        run = nn.remat(run) if self.remat else run
        betas, rates = self.betas[1:], self.drop_rates[1:]
        x = run(self.transition, x, self.betas[0], self.drop_rates[0])
        if self.blocks is None:
            return x
        if isinstance(self.blocks, tuple):
            for block, beta, rate in zip(self.blocks, betas, rates, strict=True):
                x = run(block, x, beta, rate)
            return x

        def run_layer(block, x, layer):
            beta, rate = layer
            return run(block, x, beta, rate if any(rates) else 0.0), None

        scan = nn.scan(
            run_layer,
            variable_axes={"params": 0, "signal": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
        )
        return scan(self.blocks, x, (jnp.asarray(betas), jnp.asarray(rates)))[0]


def unstack_blocks(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Takes every stack `blocks` of a network's parameters apart: `blocks_0`, ...

    `tree` is "params" or another collection. The result is the same for both layouts of
    a stage.
    """

    def unstack(stage):
        others, stack = dict(stage), stage.get("blocks", {})
        others.pop("blocks", None)
        layers = range(len(leaves[0]) if (leaves := jax.tree.leaves(stack)) else 0)
        return others | {
            f"blocks_{i}": jax.tree.map(operator.itemgetter(i), stack) for i in layers
        }

    return _map_stages(unstack, tree)


def stack_blocks(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `unstack_blocks`, for NumPy arrays: the layout of the networks."""

    def stack(stage):
        names = (f"blocks_{i}" for i in range(len(stage)))
        layers = [stage[name] for name in names if name in stage]
        if len(layers) <= UNROLLED_BLOCKS:
            return stage
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *layers)
        return {"transition": stage["transition"], "blocks": stacked}

    return _map_stages(stack, tree)


def _map_stages(function: Callable, tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: function(own) if name.startswith("stages_") else own
        for name, own in tree.items()
    }


class Layout(NamedTuple):
    """Widths and depths of the stages; `strides` are of their transition blocks."""

    stem_width: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    strides: tuple[int, ...]


def scaled_widths(
    widths: Sequence[int], multiplier: float, divisor: int | None = None
) -> tuple[int, ...]:
    """Multiplies every width and rounds it as `round_channels` does."""
    return tuple(round_channels(width * multiplier, divisor) for width in widths)


def make_stages(
    layout: Layout,
    options: Options,
    block: MakeBlock,
    branch: MakeBranch,
    shortcut: MakeShortcut,
) -> tuple[Stage, ...]:
    """Makes the stages of a network: every block is block(branch(place), shortcut)."""
    _check_layout(layout)
    betas = beta_schedule(layout.depths, options.alpha, options.beta)
    blocks = sum(layout.depths)
    rates = options.stochastic_depth * np.arange(blocks, dtype=float) / blocks
    stages, width_in, index = [], layout.stem_width, 0
    for width, depth, stride, stage_betas in zip(
        layout.widths, layout.depths, layout.strides, betas, strict=True
    ):
        first = branch(Place(width_in, width, stride, index))
        transition = block(first, shortcut=shortcut(width, stride))
        other = functools.partial(branch, Place(width, width, 1, index + 1))
        others = _further_blocks(block, other, depth - 1)
        stage_rates = tuple(map(float, rates[index : index + depth]))
        stages.append(Stage(transition, others, tuple(stage_betas), stage_rates))
        width_in, index = width, index + depth
    return tuple(stages)


def _further_blocks(
    block: MakeBlock, branch: Callable[[], nn.Module], count: int
) -> nn.Module | tuple[nn.Module, ...] | None:
    """Makes `Stage.blocks` for `count` blocks."""
    if not count:
        return None
    if count > UNROLLED_BLOCKS:
        return block(branch())
    return tuple(block(branch()) for _ in range(count))


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
