"""What a run is about to do, for people."""

import jax
import tqdm
from ml_collections import ConfigDict

from nfnet_jax.optim.factory import describe_groups
from nfnet_jax.optim.tree import count
from nfnet_jax.training.setup import Run
from nfnet_jax.training.work import Work


def summarize(config: ConfigDict, run: Run, work: Work) -> str:
    """Model, data, length and cost, optimizer and devices, a line or more each."""
    plan, devices = run.plan, jax.devices()
    train, test = run.examples
    shape = "x".join(map(str, run.facts.image_shape))
    # Of the device's own words, those that do not repeat the platform.
    kind = devices[0].device_kind
    platform = jax.default_backend()
    named = platform if kind == platform else f"{platform} ({kind})"
    sections = {
        "model": f"{config.model.name}: {count(run.state.params):,} parameters, "
        f"{flop(2 * work.image)} an image\n{run.origin}",
        "data": f"{config.data.name}: {train:,} training and {test:,} test images of "
        f"{shape}, {len(run.facts.class_names):,} classes",
        "training": f"{plan.steps:,} steps of {config.data.batch_size:,} images, "
        f"{plan.steps / plan.steps_per_epoch:.4g} epochs, "
        f"{flop(work.between(0, plan.steps))}",
        "optimizer": f"{config.optim.name} at a peak rate of {plan.peak_rate:g}\n"
        f"{describe_groups(config.optim, run.state.params)}",
        "devices": f"{len(devices)} x {named}, {config.train.dtype}, "
        f"{config.parallel.mode}",
    }
    return "\n".join(
        f"{title if i == 0 else '':11}{line}"
        for title, text in sections.items()
        for i, line in enumerate(text.splitlines())
    )


def flop(operations: float) -> str:
    """ "1.23 GFLOP"."""
    number = tqdm.tqdm.format_sizeof(operations)
    prefix = number[-1] if number[-1].isalpha() else ""
    return f"{number.removesuffix(prefix)} {prefix}FLOP"
