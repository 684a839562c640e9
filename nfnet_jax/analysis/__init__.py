"""Signal propagation of any Flax network: measure, predict, check, plot.

A unit test for a network of one's own:

    signal = measure(model, variables, images, blocks=r"Block_\\d+$", train=False)
    assert check(signal, predict(signal, depths=(3, 4, 6, 3), alpha=0.2), 0.1) is None
"""

from nfnet_jax.analysis.diagnose import Deviation, check
from nfnet_jax.analysis.gradients import LayerGradient, in_order, measure_gradients
from nfnet_jax.analysis.measure import Signal, measure, open_branches
from nfnet_jax.analysis.plot import plot, plot_activations
from nfnet_jax.analysis.table import Analysis, table, to_json
from nfnet_jax.analysis.theory import (
    BlockPrediction,
    block_pattern,
    follows_schedule,
    predict,
    predict_network,
    predicted_variance,
)

__all__ = [
    "Analysis",
    "BlockPrediction",
    "Deviation",
    "LayerGradient",
    "Signal",
    "block_pattern",
    "check",
    "follows_schedule",
    "in_order",
    "measure",
    "measure_gradients",
    "open_branches",
    "plot",
    "plot_activations",
    "predict",
    "predict_network",
    "predicted_variance",
    "table",
    "to_json",
]
