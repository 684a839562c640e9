"""What NFNets need on 1 to 1,024 devices: memory, traffic, time, by arithmetic.

    python experiments/scaling/run.py

prints the table of this folder's README. Nothing is compiled or run: state and what
the gradient keeps come from shapes, operations from the traced step.
"""

import math

import jax
import jax.numpy as jnp

from nfnet_jax.layers.convolution import native_convolutions
from nfnet_jax.models.flops import counts
from nfnet_jax.models.network import rematerialized
from nfnet_jax.models.registry import create_model, find
from nfnet_jax.training.hardware import HARDWARE, predict

CHIP = "H100 SXM"
BATCH = 4096
DEVICES = (1, 8, 64, 256, 1024)
CLASSES = 1000
FLOATS = 4 * 4
"""Bytes of a parameter with its gradient, momentum and average."""
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

    with native_convolutions():
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


def step(parameters: int, kept: float, macs: int, devices: int) -> str:
    """Predicted seconds, and the microbatches."""
    parts = microbatches(FLOATS * parameters, kept, BATCH // devices)
    if parts is None:
        return "–"
    sent = 2 * 4 * parameters * (devices - 1) / devices
    flops = 2 * 3 * macs * BATCH
    seconds = predict(HARDWARE[CHIP], flops, sent, 0, devices).seconds
    return f"{seconds:.2f} ({parts})"


def main() -> None:
    columns = ["side", "parameters, M", "GFLOP", "kept, MB", "with remat, MB"]
    columns += [f"{devices} GPUs" if devices > 1 else "1 GPU" for devices in DEVICES]
    print(f"| | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for level in range(8):
        name = f"nfnet_f{level}"
        model, side = create_model(name, CLASSES), find(name).train_size
        shape = (side, side, 3)
        params = jax.eval_shape(
            lambda model=model, shape=shape: model.init(
                jax.random.key(0), jnp.zeros((1, *shape))
            )
        )["params"]
        parameters, macs = counts(model, shape)
        kept = kept_bytes(model, params, side)
        less = kept_bytes(rematerialized(model), params, side)
        cells = [f"{side}", f"{parameters / 1e6:.0f}", f"{6 * macs / 1e9:.0f}"]
        cells += [f"{kept / 1e6:.0f}", f"{less / 1e6:.0f}"]
        cells += [step(parameters, kept, macs, n) for n in DEVICES]
        print(f"| F{level} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
