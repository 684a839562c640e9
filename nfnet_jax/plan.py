r"""Plans a run on devices that are not here, and without its data if need be.

    python -m nfnet_jax.plan --config configs/cifar10.py --target v5e:1x1
    python -m nfnet_jax.plan --config configs/imagenet_nfnet.py:f0 --target h100:8 \
        --config.data.batch_size=1024 --largest_batch

Compiles the train and the evaluation step with the compiler of the target, and prints
memory, traffic, operations and, for TPUs, its estimate of the time. Exits with 2 if
the run does not fit, and says what to change. `pip install 'nfnet_jax[tpu-plan]'` and
`[gpu-plan]` bring the compilers; --devices=N is a rough plan without them.
"""

import dataclasses
import re
import sys

from nfnet_jax import cli
from nfnet_jax.config.kinds import Int, Switch
from nfnet_jax.utils.errors import UserError


def main(argv: list[str]) -> None:
    """Prints memory, operations, traffic and estimated time of a run's steps."""
    flags = cli.parse(
        argv,
        __doc__,
        config="needed",
        target="devices to compile for: a TPU slice (v4:2x2x1, v5e:2x2, v5p:2x2x1, "
        "v6e:2x2, tpu7x:2x2x1, ...) or GPUs (a100:8, h100:8, h200:8, b200:8)",
        largest_batch=Switch(False, "search for the largest batch that fits"),
        devices=Int(None, "simulated devices, without --target", "[1, 4096]"),
        image_shape="HEIGHTxWIDTHxCHANNELS of the stored images, such as 28x28x1, if "
        "the data are not on this machine",
        output="JSON file to write the numbers to (default: none)",
    )
    image_shape = _shape(flags.image_shape)
    if flags.target:
        if flags.devices:
            raise UserError("--target and --devices exclude each other")
        _plan_target(flags, image_shape)
    elif flags.largest_batch:
        raise UserError("--largest_batch needs --target, such as --target=v5e:1x1")
    else:
        _plan_devices(flags, image_shape)


def _plan_target(flags, image_shape) -> None:
    from nfnet_jax.planning.target import parse_target, prepare

    target = parse_target(flags.target)
    prepare(target)
    from nfnet_jax.planning import text
    from nfnet_jax.planning.plan import largest_batch, make_plan

    config = flags.config
    if flags.largest_batch:
        found = largest_batch(config, target, image_shape, _report)
        config.data.batch_size = found.batch_size
    else:
        found = make_plan(config, target, image_shape)
    print(text.describe_plan(config, target, found))
    _write(flags.output, found.values())
    if not found.fits:
        raise UserError(text.refusal(config, target, found))


def _report(step) -> None:
    """Tells of a compilation on the way to the largest batch."""
    verdict = "fits" if step.fits else "does not fit"
    sys.stderr.write(
        f"batch {step.examples} {verdict} (compiled in {step.compile_seconds:.0f} s)\n"
    )


def _plan_devices(flags, image_shape) -> None:
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", flags.devices or 1)
    from nfnet_jax.planning.compile import forecast
    from nfnet_jax.planning.text import describe_forecast

    found = forecast(flags.config, image_shape)
    print(describe_forecast(flags.config, found))
    _write(flags.output, dataclasses.asdict(found) | {"memory": found.memory})


def _write(path: str | None, values: dict) -> None:
    if not path:
        return
    from nfnet_jax.training.workdir import write_json, writing

    with writing(path, "--output"):
        write_json(path, values)


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


if __name__ == "__main__":
    cli.run(main)
