"""Cost of a scan over residual blocks on a CPU, stock and with our convolution.

    python experiments/scanned_blocks/run.py

Prints GFLOP/s of value and gradients of six blocks x + 0.2 · conv(relu(x)), 3x3, batch
32, in a scan and unrolled: the best of two runs each, the variants taking turns.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nfnet_jax.ops.conv import conv2d
from nfnet_jax.ops.cpu_conv import DIMENSIONS

LAYERS, BATCH, ROUNDS = 6, 32, 2
SHAPES = ((32, 32), (16, 64), (8, 128))
"""(image side, channels)."""


def stock(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSIONS
    )


def scanned(conv: Callable, x: jax.Array, kernels: jax.Array) -> jax.Array:
    def block(x, kernel):
        return x + 0.2 * conv(jax.nn.relu(x), kernel), None

    return lax.scan(block, x, kernels)[0].sum()


def unrolled(conv: Callable, x: jax.Array, kernels: jax.Array) -> jax.Array:
    for kernel in kernels:
        x = x + 0.2 * conv(jax.nn.relu(x), kernel)
    return x.sum()


def main() -> None:
    rng = np.random.RandomState(0)
    for side, channels in SHAPES:
        x = jnp.asarray(rng.standard_normal((BATCH, side, side, channels)), "float32")
        shape = (LAYERS, 3, 3, channels, channels)
        kernels = jnp.asarray(0.02 * rng.standard_normal(shape), "float32")
        programs = {
            f"{conv.__name__} {network.__name__}": jax.jit(
                jax.grad(lambda x, k, n=network, c=conv: n(c, x, k), (0, 1))
            )
            for conv in (conv2d, stock)
            for network in (scanned, unrolled)
        }
        best = dict.fromkeys(programs, np.inf)
        for _ in range(ROUNDS + 1):  # The first round compiles.
            for name, program in programs.items():
                start = time.perf_counter()
                jax.block_until_ready(program(x, kernels))
                best[name] = min(best[name], time.perf_counter() - start)
        flops = 3 * 2 * LAYERS * x.size * 9 * channels
        rates = "  ".join(f"{k}: {flops / t / 1e9:.0f}" for k, t in best.items())
        print(f"{side}x{side}x{channels}  {rates}", flush=True)


if __name__ == "__main__":
    main()
