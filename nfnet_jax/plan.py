r"""Tells what a run would need, without its data and its devices.

    python -m nfnet_jax.plan --config configs/imagenet_nfnet.py:f0 --devices 8
    python -m nfnet_jax.plan --config configs/imagenet_nfnet.py:f5 --devices 64 \
        --config.parallel.fsdp=True --config.train.remat=block

Compiles the training step for simulated devices and prints memory, operations and
traffic of each.
"""

import dataclasses
import json

from nfnet_jax import cli
from nfnet_jax.errors import UserError

MOST_DEVICES = 4096


def main(argv: list[str]) -> None:
    """Prints memory, operations and traffic of a step, and what it would take."""
    config, flags = cli.parse_config_flags(
        argv,
        about=__doc__,
        devices="how many (default: 1)",
        output="JSON file for the numbers (default: none)",
    )
    devices = cli.whole_number("devices", flags.devices, MOST_DEVICES) or 1
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    from nfnet_jax.training.forecast import forecast

    found = forecast(config)
    _print(config, found)
    if flags.output:
        _write(flags.output, dataclasses.asdict(found) | {"memory": found.memory})


def _print(config, found) -> None:
    from nfnet_jax.training.hardware import HARDWARE, UTILIZATION, predict

    height, width, channels = found.image_shape
    batch, dtype = config.data.batch_size, config.train.dtype
    print(
        f"{config.model.name}: batch {batch} on {found.devices} device(s), images "
        f"{height}x{width}x{channels}, {dtype}, remat {config.train.remat}, fsdp "
        f"{config.parallel.fsdp}; compiled in {found.compile_seconds:.0f} s\n"
        "\nGB per device"
    )
    for name in ("parameters", "optimizer", "average", "batch", "working", "memory"):
        label = "all together" if name == "memory" else name
        print(f"  {label:12} {getattr(found, name) / 1e9:10.3f}")
    print(
        "  (working: XLA's own analysis of the program for a CPU, which computes "
        "bfloat16\n  convolutions in float32; the others are exact)\n"
        f"\nTFLOP per step     {found.flops / 1e12:10.3f}"
    )
    for name, sent in sorted(found.collectives.items()):
        print(f"GB sent per device {sent / 1e9:10.3f}  {name}")
    print(f"\nPredicted, not measured, at {UTILIZATION:.0%} of the peak:")
    sent = sum(found.collectives.values())
    for name, chip in HARDWARE.items():
        step = predict(chip, found.flops, sent, found.memory, found.devices, dtype)
        print(
            f"  {name:10} {step.seconds:8.3f} s a step, {step.computing:.3f} computing "
            f"and {step.sending:.3f} sending, {batch / step.seconds:9.0f} images/s"
            f"{'' if step.fits else f', but more than its {chip.memory / 1e9:g} GB'}"
        )


def _write(path: str, values: dict) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2)
            file.write("\n")
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror}") from error


if __name__ == "__main__":
    cli.run(main)
