"""Fixtures of whole runs."""

import pytest
from tiny_run import UNDISTURBED, tiny_config

from nfnet_jax.training import loop


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Work directory of a tiny run of 16 steps, with a checkpoint of every step.

    A run of fewer steps passes through the same states.
    """
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    loop.train(tiny_config(**UNDISTURBED), str(workdir))
    return workdir
