"""What NFNets need on 1 to 1,024 devices: memory, traffic, time, by arithmetic.

    python experiments/scaling/run.py

prints the table of this folder's README. Nothing is compiled or run: state and what
the gradient keeps come from shapes, operations from the traced step.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nfnet_jax.models.network import rematerialized
from nfnet_jax.models.registry import create_model, find
from nfnet_jax.models.statistics import counts
from nfnet_jax.ops.conv import native_operations
from nfnet_jax.planning.hardware import HARDWARE, predict

CHIP = "H100 SXM"
BATCH = 4096
DEVICES = (1, 8, 64, 256, 1024)
CLASSES = 1000
SIDE = 192
BYTES_PER_PARAMETER = 4 * 4
"""With its gradient, momentum and average."""
USABLE = 0.9
"""Share of the memory that a step may fill."""
MARK = 9973
"""A number of images that no other dimension equals."""


def kept_bytes(model, params, side: int) -> float:
    """What the gradient of one image keeps, in bfloat16."""
    images = jax.ShapeDtypeStruct((MARK, side, side, 3), jnp.bfloat16)

    def keep(params, images):
        def logits(params):
            rngs = {"dropout": jax.random.key(0)}
            return model.apply({"params": params}, images, train=True, rngs=rngs)

        return jax.vjp(logits, params)[1]

    with native_operations():
        leaves = jax.tree.leaves(jax.eval_shape(keep, params, images))
    of_images = [leaf for leaf in leaves if MARK in leaf.shape]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in of_images) / MARK


def microbatches(state: float, kept: float, images: int) -> int | None:
    """Into how many parts, a power of 2, `images` must go for one to fit; None: no."""
    room = USABLE * HARDWARE[CHIP].memory - state
    parts = 1
    while kept * math.ceil(images / parts) > room:
        if parts >= images:
            return None
        parts *= 2
    return parts


class Needs(NamedTuple):
    """Parameters; multiply-adds, and bytes that the gradient keeps, of an image."""

    parameters: float
    macs: float
    kept: float
    kept_with_remat: float


def step(needs: Needs, devices: int) -> str:
    """Predicted seconds, and the microbatches."""
    parts = microbatches(
        BYTES_PER_PARAMETER * needs.parameters, needs.kept, BATCH // devices
    )
    if parts is None:
        return "–"
    sent = 2 * 4 * needs.parameters * (devices - 1) / devices
    flops = 2 * 3 * needs.macs * BATCH
    seconds = predict(HARDWARE[CHIP], flops, sent, 0, devices).seconds
    return f"{seconds:.2f} ({parts})"


def traced(level: int) -> Needs:
    """Of F0 or F1 on images of `SIDE`."""
    model, shape = create_model(f"nfnet_f{level}", CLASSES), (SIDE, SIDE, 3)
    params = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)))
    )["params"]
    kept = [kept_bytes(own, params, SIDE) for own in (model, rematerialized(model))]
    return Needs(*counts(model, shape), *kept)


def scaled(zero: Needs, one: Needs, level: int, side: int) -> Needs:
    """Of F`level`: n + 1 times the blocks of F0, on images of another side."""
    parameters, *rest = (a + level * (b - a) for a, b in zip(zero, one, strict=True))
    return Needs(parameters, *(value * (side / SIDE) ** 2 for value in rest))


def row(level: int, side: int, needs: Needs) -> str:
    cells = [f"F{level}", f"{side}", f"{needs.parameters / 1e6:.0f}"]
    cells += [f"{6 * needs.macs / 1e9:.0f}"]
    cells += [f"{kept / 1e6:.0f}" for kept in needs[2:]]
    cells += [step(needs, devices) for devices in DEVICES]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    columns = ["", "side", "parameters, M", "GFLOP", "kept, MB", "with remat, MB"]
    columns += [f"{devices} GPUs" if devices > 1 else "1 GPU" for devices in DEVICES]
    print(f"| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    zero, one = traced(0), traced(1)
    for level in range(8):
        side = find(f"nfnet_f{level}").train_size
        print(row(level, side, scaled(zero, one, level, side)))


if __name__ == "__main__":
    main()
