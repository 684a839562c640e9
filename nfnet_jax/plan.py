r"""Plans a run without its devices, and without its data if need be.

    python -m nfnet_jax.plan --config configs/imagenet_nfnet.py:f0 --devices 8
    python -m nfnet_jax.plan --config configs/imagenet_nfnet.py:f5 --devices 64 \
        --config.parallel.fsdp=True --config.train.remat=block

Compiles the training step for simulated devices and prints memory, operations and
traffic of each.
"""

import dataclasses
import re

from nfnet_jax import cli
from nfnet_jax.config.kinds import Int
from nfnet_jax.utils.errors import UserError


def main(argv: list[str]) -> None:
    """Prints memory, operations, traffic and predicted time of a step."""
    flags = cli.parse(
        argv,
        __doc__,
        config="needed",
        devices=Int(1, "number of simulated devices", "[1, 4096]"),
        image_shape="HEIGHTxWIDTHxCHANNELS of the stored images, such as 28x28x1, if "
        "the data are not on this machine",
        output="JSON file to write the numbers to (default: none)",
    )
    config, image_shape = flags.config, _shape(flags.image_shape)
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", flags.devices)
    from nfnet_jax.planning.compile import forecast
    from nfnet_jax.training.workdir import write_json, writing

    found = forecast(config, image_shape)
    _print(config, found)
    if flags.output:
        with writing(flags.output, "--output"):
            values = dataclasses.asdict(found) | {"memory": found.memory}
            write_json(flags.output, values)


def _shape(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,2})", text)
    if not sides:
        raise UserError(
            f"--image_shape is {text!r}, expected HEIGHTxWIDTHxCHANNELS such as 28x28x1"
        )
    height, width, channels = map(int, sides.groups())
    return height, width, channels


def _print(config, found) -> None:
    from nfnet_jax.planning.hardware import HARDWARE, UTILIZATION, predict
    from nfnet_jax.utils.units import seconds, with_prefix

    height, width, channels = found.image_shape
    batch, dtype = config.data.batch_size, config.train.dtype
    print(
        f"{config.model.name}: batch {batch} on {found.devices} device(s), images "
        f"{height}x{width}x{channels}, {found.source}, {found.classes} classes, "
        f"{dtype}, remat {config.train.remat}, fsdp {config.parallel.fsdp}; compiled "
        f"in {found.compile_seconds:.0f} s\n"
        "\nmemory per device"
    )
    for name in ("parameters", "optimizer", "average", "batch", "working", "memory"):
        label = "all together" if name == "memory" else name
        print(f"  {label:16} {with_prefix(getattr(found, name), 'B'):>10}")
    print(
        "  (working: XLA's own analysis of the program for a CPU, which computes "
        "bfloat16\n  convolutions in float32; the others are exact)\n"
        f"\noperations per step {with_prefix(found.flops, 'FLOP'):>10}"
    )
    for name, sent in sorted(found.collectives.items()):
        print(f"sent per device     {with_prefix(sent, 'B'):>10}  {name}")
    print(f"\nPredicted, not measured, at {UTILIZATION:.0%} of the peak:")
    sent = sum(found.collectives.values())
    for name, chip in HARDWARE.items():
        step = predict(chip, found.flops, sent, found.memory, found.devices, dtype)
        print(
            f"  {name:10} {seconds(step.seconds):>8} a step, "
            f"{seconds(step.computing)} computing and {seconds(step.sending)} sending, "
            f"{batch / step.seconds:9.0f} images/s"
            f"{'' if step.fits else f', but more than its {chip.memory / 1e9:g} GB'}"
        )


if __name__ == "__main__":
    cli.run(main)
