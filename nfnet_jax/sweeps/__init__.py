"""Sweeps of config keys by Optuna; see `python -m nfnet_jax.sweep --help`."""
