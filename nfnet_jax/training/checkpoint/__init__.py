"""Checkpoints of the training state: when to save, which to keep, how to restore."""

from nfnet_jax.training.checkpoint.manager import (
    Checkpoints,
    SaveTimes,
    Scores,
    best_step,
)

__all__ = ["Checkpoints", "SaveTimes", "Scores", "best_step"]
