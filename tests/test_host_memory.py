import subprocess
import sys

FAULTS = """
import resource
import sys

if sys.argv[1] == "keep":
    from nfnet_jax.host_memory import keep_host_memory

    keep_host_memory()

import jax
import jax.numpy as jnp

# Its sine, 16,384 pages of working memory, has to exist before the product.
call = jax.jit(lambda x: jnp.sin(x).T @ jnp.sin(x))
x = jnp.ones((2**20, 16))
calls = lambda: [jax.block_until_ready(call(x)) for _ in range(30)]
calls()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
calls()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    """Page faults of 30 calls of a compiled program, after 30 others."""
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


def test_repeated_calls_take_no_memory_from_the_kernel():
    faults = page_faults("keep")
    assert 8 * faults < 30 * 16_000 < page_faults("leave")
