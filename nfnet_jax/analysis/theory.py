"""Predictions of the β schedule for the signal after every block.

Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
unnormalized ResNets", arXiv 2101.08692, section 4.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nfnet_jax.analysis.measure import BLOCKS, BlockSignal, Signal
from nfnet_jax.layers.activations import (
    ACTIVATIONS,
    activation_gain,
    activation_variance,
)
from nfnet_jax.layers.residual import expected_std
from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import find, model_options
from nfnet_jax.models.stage import Stage
from nfnet_jax.utils.errors import UserError

Transfer = Callable[[float], float]
"""Variance before a scaled activation -> variance after it."""


class BlockPrediction(NamedTuple):
    """Predicted variances of one block at initialization, with open branches.

    output_var: of the signal after the block. branch_input_var: of γ · act(x) / β, from
    the variance that was measured before the block and the right `beta`, or 1 where
    channels have a mean that outweighs the variance, as after max pooling. branch_var:
    after the n convolutions and n - 1 activations of the branch.
    """

    output_var: float
    branch_input_var: float
    branch_var: float
    beta: float


def predicted_variance(depths: tuple[int, ...], alpha: float) -> np.ndarray:
    """Variance [blocks] after each block if every branch preserves it."""
    before = np.square(np.concatenate(expected_std(depths, alpha)))
    first = np.concatenate([np.arange(depth) == 0 for depth in depths])
    return np.where(first, 1.0, before) + alpha**2


def predict(
    signal: Signal,
    depths: tuple[int, ...],
    alpha: float,
    transfer: Transfer = lambda variance: variance,
    pool_gain: float = 1.0,
) -> tuple[BlockPrediction, ...]:
    """The predictions for a network of stages of `depths` blocks.

    Where the projection of a stage pools, the schedule starts from what pooling is
    predicted to leave there, and goes on from what was measured after that first block:

    share · pool_gain² · t(Var(x)) / β² + α² · branch,

    then Var(x) + α² · branch, block by block,

    where t is `transfer` (the identity is exact for ReLU and its like) and a branch of
    n convolutions has variance t(... t(t(Var(x)) / β²)), n times t.

    Raises:
      UserError: the signal has another number of blocks, or one without convolutions.
    """
    for block in signal.blocks:
        if not block.convs:
            raise UserError(f"block {block.name} has no convolution, expected a branch")
    if sum(depths) != len(signal.blocks):
        raise UserError(
            f"depths {depths} are {sum(depths)} blocks, expected the "
            f"{len(signal.blocks)} that were measured"
        )

    def branch_after(entering: float, block: BlockSignal) -> float:
        """Variance after a branch, from that after the block's first activation."""
        for _ in block.convs[1:]:
            entering = transfer(entering)
        return entering

    scheduled = iter(predicted_variance(depths, alpha))
    blocks = iter(signal.blocks)
    predictions: list[BlockPrediction] = []
    for betas in expected_std(depths, alpha):
        after_pooling = None
        for beta, block, output in zip(betas, blocks, scheduled, strict=False):
            variance = float(block.input.var)
            has_mean = block.input.sq_mean > variance
            entering = 1.0 if has_mean else transfer(variance) / beta**2
            branch = branch_after(entering, block)
            if block.pooling:
                output = float(block.pooling.predicted) * pool_gain**2 * entering
                output += alpha**2 * branch
                after_pooling = float(block.output.var)
            elif after_pooling is not None:
                inside = branch_after(transfer(after_pooling) / beta**2, block)
                output = after_pooling = after_pooling + alpha**2 * inside
            predictions.append(BlockPrediction(float(output), entering, branch, beta))
    return tuple(predictions)


def predict_network(
    model: Network, signal: Signal
) -> tuple[BlockPrediction, ...] | None:
    """Predictions for a network of `create_model`, None where β is not its method.

    None is for BatchNorm, SkipInit, Fixup, networks without residual blocks and timm's,
    which multiply γ into every kernel. An ablation (`beta`, `gamma`,
    `weight_standardization`) gets the prediction that it violates.
    """
    if not follows_schedule(model):
        return None
    options = model_options(model.spec)
    depths = tuple(len(stage.betas) for stage in model.stages)
    fn = ACTIVATIONS[options.activation]
    gamma = activation_gain(options.activation)

    def transfer(variance: float) -> float:
        return gamma**2 * activation_variance(fn, variance)

    return predict(signal, depths, options.alpha, transfer, options.pool_gain)


def block_pattern(model: Network) -> str:
    """The `blocks` of `measure` for any network of `create_model`."""
    residual = all(isinstance(stage, Stage) for stage in model.stages)
    return BLOCKS if residual else r"^stages_\d+$"


def follows_schedule(model: Network) -> bool:
    """True for a residual network whose design is the β schedule."""
    if block_pattern(model) != BLOCKS or model_options(model.spec).gamma_in_kernel:
        return False
    return find(model.spec.name).follows_beta_schedule
