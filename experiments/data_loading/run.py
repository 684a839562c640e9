"""Cost of shuffling and augmentation inside the compiled step.

    python experiments/data_loading/run.py

Times the draw of a batch of 256 (order, crop, flip, cutout, normalization) from 50,000
images of CIFAR-10's shape in device memory, and the whole update of NF-WRN-16-4.
"""

import statistics
import time

import jax
import numpy as np

from nfnet_jax.config import base_config
from nfnet_jax.data.sources.arrays import from_arrays
from nfnet_jax.training.experiment import Experiment


def main() -> None:
    config = base_config()
    config.model.name = "nf_wrn_16_4"
    config.data.batch_size = 256
    config.data.augment.crop_padding = 4
    config.data.augment.flip = True
    config.data.augment.cutout = 8
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (50_000, 32, 32, 3), dtype=np.uint8)
    arrays = (images, random.randint(0, 10, 50_000))
    run = Experiment(config, from_arrays({"train": arrays, "test": arrays}))
    host_batch = next(run.train_batches.iterate(0))
    draw = jax.jit(run.make_draw())
    step, state = run.train_step, run.state

    def update(number):
        nonlocal state
        state, metrics = step(state, host_batch)
        return metrics

    alone = median_seconds(lambda number: draw(host_batch, number), 50)
    whole = median_seconds(update, 5)
    print(
        f"draw {alone * 1e3:.2f} ms, update {whole * 1e3:.0f} ms: {alone / whole:.2%}"
    )


def median_seconds(task, count: int) -> float:
    """Median time of a call `task(number)`, after the first, which compiles."""
    jax.block_until_ready(task(0))
    seconds = []
    for number in range(1, count + 1):
        started = time.perf_counter()
        jax.block_until_ready(task(number))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
