"""Logs of a run: files and W&B, the terminal, interval means, profiler traces."""

from nfnet_jax.training.logging.console import Progress, Stopwatch, summarize
from nfnet_jax.training.logging.profiler import Trace, traced_steps
from nfnet_jax.training.logging.reporter import Diverged, Reporter
from nfnet_jax.training.logging.writer import MetricWriter, check_wandb

__all__ = [
    "Diverged",
    "MetricWriter",
    "Progress",
    "Reporter",
    "Stopwatch",
    "Trace",
    "check_wandb",
    "summarize",
    "traced_steps",
]
