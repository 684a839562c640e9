"""Settings of a process: kept programs and kept memory."""

import subprocess
import sys

import jax
import pytest

from nfnet_jax.utils import runtime

FAULTS = """
import resource
import statistics
import sys

if sys.argv[1] == "keep":
    from nfnet_jax.utils.runtime import keep_host_memory

    keep_host_memory()

import jax
import jax.numpy as jnp

# The sine, 9,216 pages of working memory, has to exist before the product. From 32 MiB
# on, glibc maps a block anew whatever it was asked for before.
call = jax.jit(lambda x: jnp.sin(x).T @ jnp.sin(x))
x = jnp.ones((2**19, 18))


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(call(x))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


for _ in range(10):
    faults()
print(statistics.median(faults() for _ in range(15)))
"""


def page_faults(how: str) -> float:
    """Median of the page faults of a call of a compiled program, after 10 others."""
    command = [sys.executable, "-c", FAULTS, how]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


def test_repeated_calls_take_no_memory_from_the_kernel():
    # Now and then a call does: XLA has not freed the block of the call before it yet.
    assert page_faults("keep") < 100
    assert page_faults("leave") > 9_000


@pytest.mark.parametrize(("asked", "seconds"), [(None, 0.1), ("2.5", 2.5)])
def test_compilations_worth_keeping(asked, seconds, monkeypatch):
    name = "jax_persistent_cache_min_compile_time_secs"
    settings = {name: float(asked or 1)}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.delenv(name.upper(), raising=False)
    if asked:
        monkeypatch.setenv(name.upper(), asked)
    runtime.enable_compilation_cache()
    assert settings[name] == seconds
