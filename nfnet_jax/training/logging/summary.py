"""What a run is about to do, for people."""

import jax
import tqdm

from nfnet_jax.optim.factory import describe_groups
from nfnet_jax.optim.tree import count
from nfnet_jax.training.experiment import Experiment


def summarize(experiment: Experiment) -> str:
    """Model, data, length and cost, optimizer and devices, a line or more each."""
    config, plan, work = experiment.config, experiment.timeline, experiment.work
    devices = jax.devices()
    params, _ = experiment.abstract_variables
    dataset, spec = experiment.dataset, experiment.data_spec
    shape = "x".join(map(str, spec.image_shape))
    # Of the device's own words, those that do not repeat the platform.
    kind = devices[0].device_kind
    platform = jax.default_backend()
    named = platform if kind == platform else f"{platform} ({kind})"
    sections = {
        "model": f"{config.model.name}: {count(params):,} parameters, "
        f"{flop(2 * work.image)} an image\n{experiment.origin}",
        "data": f"{config.data.name}: {len(dataset.train):,} training and "
        f"{len(dataset.test):,} test images of {shape}, "
        f"{len(spec.class_names):,} classes",
        "training": f"{plan.steps:,} steps of {config.data.batch_size:,} images, "
        f"{plan.steps / plan.steps_per_epoch:.4g} epochs, "
        f"{flop(work.between(0, plan.steps))}",
        "optimizer": f"{config.optim.name} at a peak rate of {plan.peak_rate:g}\n"
        f"{describe_groups(config.optim, params)}",
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
