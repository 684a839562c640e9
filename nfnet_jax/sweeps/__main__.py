"""Trains as `python -m nfnet_jax.train`, and ends with the sweep that started it."""

import os

from nfnet_jax import cli
from nfnet_jax.train import main
from nfnet_jax.utils.runtime import end_with_parent

if __name__ == "__main__":
    end_with_parent(os.getppid())
    cli.run(main)
