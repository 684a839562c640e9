"""Predictions of the β schedule for the signal after every block.

Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
unnormalized ResNets", arXiv 2101.08692, section 4.
"""

import itertools
from collections.abc import Callable, Sequence
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
    betas = expected_std(depths, alpha)
    scheduled = iter(predicted_variance(depths, alpha))
    blocks = iter(signal.blocks)
    predictions: list[BlockPrediction] = []
    for stage_betas in betas:
        stage = list(itertools.islice(blocks, len(stage_betas)))
        outputs = list(itertools.islice(scheduled, len(stage_betas)))
        entering = [
            _entering(block, beta, transfer)
            for block, beta in zip(stage, stage_betas, strict=True)
        ]
        if stage[0].pooling:
            outputs = _after_pooling(stage, stage_betas, alpha, transfer, pool_gain)
        branches = [
            _branch(variance, len(block.convs), transfer)
            for variance, block in zip(entering, stage, strict=True)
        ]
        predictions += map(
            BlockPrediction, map(float, outputs), entering, branches, stage_betas
        )
    return tuple(predictions)


def _entering(block: BlockSignal, beta: float, transfer: Transfer) -> float:
    if block.input.sq_mean > block.input.var:
        return 1.0
    return transfer(float(block.input.var)) / beta**2


def _after_pooling(
    stage: Sequence[BlockSignal],
    betas: Sequence[float],
    alpha: float,
    transfer: Transfer,
    pool_gain: float,
) -> list[float]:
    """Variances after each block of a stage whose projection pools."""
    convs = len(stage[0].convs)
    entering = _entering(stage[0], betas[0], transfer)
    pooling = stage[0].pooling
    assert pooling is not None
    first = float(pooling.predicted) * pool_gain**2 * entering
    outputs = [first + alpha**2 * _branch(entering, convs, transfer)]
    variance = float(stage[0].output.var)
    for beta in betas[1:]:
        entering = transfer(variance) / beta**2
        variance += alpha**2 * _branch(entering, convs, transfer)
        outputs.append(variance)
    return outputs


def _branch(variance: float, convs: int, transfer: Transfer) -> float:
    """Variance after a branch, from that after the block's first activation."""
    for _ in range(convs - 1):
        variance = transfer(variance)
    return variance


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
    transfer = scaled_transfer(options.activation)
    return predict(signal, depths, options.alpha, transfer, options.pool_gain)


def block_pattern(model: Network) -> str:
    """The `blocks` of `measure` for any network of `create_model`."""
    residual = all(isinstance(stage, Stage) for stage in model.stages)
    return BLOCKS if residual else r"^stages_\d+$"


def follows_schedule(model: Network) -> bool:
    """True for a residual network whose design is the β schedule."""
    if not all(isinstance(stage, Stage) for stage in model.stages):
        return False
    if model_options(model.spec).gamma_in_kernel:
        return False
    return find(model.spec.name).follows_beta_schedule


def scaled_transfer(activation: str) -> Transfer:
    """`Transfer` of γ · activation."""
    fn, gamma = ACTIVATIONS[activation], activation_gain(activation)
    return lambda variance: gamma**2 * activation_variance(fn, variance)
