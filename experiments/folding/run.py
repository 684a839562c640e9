"""Inference time of a folded network beside the original.

    python experiments/folding/run.py

Median milliseconds of inference of the network as trained, folded, and folded with its
blocks unrolled instead of scanned; the three take turns. Prints the table of README.md
and writes results.json beside it.
"""

import json
import pathlib
import statistics
import time

import jax

from nfnet_jax import create_model
from nfnet_jax.inference.fold import fold
from nfnet_jax.inference.unroll import unroll

CASES = (
    # model, image size, batch size, rounds
    ("nf_resnet50", 224, 1, 30),
    ("nf_resnet50", 224, 8, 15),
    ("nfnet_f0", 128, 1, 30),
    ("nfnet_f0", 128, 8, 15),
    ("nfnet_f0", 256, 1, 15),
    ("nfnet_f0", 256, 8, 7),
)
WARM_UP = 2
RESULTS = pathlib.Path(__file__).parent / "results.json"


def measure(name: str, size: int, batch: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of the three."""
    model = create_model(name, 1000)
    images = jax.random.normal(jax.random.key(1), (batch, size, size, 3))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    folded, folded_params = fold(model, params)
    programs = {
        "as trained": (model.apply, {"params": params}),
        "folded": (folded.apply, {"params": folded_params}),
        "folded, unrolled": unroll(folded, {"params": folded_params}),
    }
    compiled = {
        label: (jax.jit(program).lower(own, images).compile(), own)
        for label, (program, own) in programs.items()
    }
    times = {label: [] for label in programs}
    for _ in range(WARM_UP + rounds):
        for label, (program, own) in compiled.items():
            start = time.perf_counter()
            program(own, images).block_until_ready()
            times[label].append(1e3 * (time.perf_counter() - start))
    return {label: statistics.median(own[WARM_UP:]) for label, own in times.items()}


def main() -> None:
    print("| network | images | as trained | folded | folded, unrolled | speed-up |")
    print("|---|---|---|---|---|---|")
    results = []
    for name, size, batch, rounds in CASES:
        ms = measure(name, size, batch, rounds)
        ratio = ms["as trained"] / ms["folded"]
        results.append(
            {"model": name, "size": size, "batch": batch, "ms": ms, "speedup": ratio}
        )
        cells = " | ".join(f"{value:.1f} ms" for value in ms.values())
        print(
            f"| {name} | {batch} × {size}² | {cells} | {ratio:.2f} |",
            flush=True,
        )
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
