"""Writes a trained network as one file that needs none of this project.

    python -m nfnet_jax.export --workdir runs/cifar10 --output cifar10.jaxexport
    python -m nfnet_jax.export --model nfnet_f0 --weights nfnet_f0 --output f0.onnx

FILE.json beside the file has classes, image shape and normalization.
"""

from nfnet_jax import cli
from nfnet_jax.config.kinds import Int
from nfnet_jax.utils.errors import UserError


def main(argv: list[str]) -> None:
    """Writes the file, and FILE.json with what it is; prints one line about it."""
    flags = cli.parse(
        argv,
        __doc__,
        workdir="directory of the run whose last averaged network to write",
        model="name of a network, such as nfnet_f0, instead of --workdir",
        weights="weights of --model: a file, or a published name",
        output="file to write, such as f0.jaxexport or f0.onnx",
        format="jax or onnx (default: onnx if --output ends in .onnx, else jax)",
        image_size=Int(
            None,
            "side of the images in pixels, if not that of the run or model",
            "[1, 4096]",
        ),
    )
    if not flags.output:
        raise UserError("--output is missing, expected a file such as f0.jaxexport")
    cli.check_network_flags(flags)
    from nfnet_jax.inference.export import check_target, export_network, format_of

    file_format = flags.format or format_of(flags.output)
    check_target(flags.output, file_format)
    cli.prepare_jax()
    if flags.workdir:
        model, variables, image_shape, facts = _of_run(flags.workdir)
    else:
        model, variables, image_shape, facts = _published(flags)
    if flags.image_size:
        image_shape = (flags.image_size, flags.image_size, image_shape[-1])
    network = (model, variables, image_shape)
    export_network(flags.output, *network, file_format=file_format, facts=facts)
    shape = ", ".join(map(str, image_shape))
    print(
        f"{flags.output}: {model.spec.name}, normalized float32 images [N, {shape}] -> "
        f"logits [N, {model.spec.num_classes}]; read again, it gave the same logits"
    )


def _of_run(workdir: str):
    """Network, variables, image shape and facts of a run's last checkpoint."""
    import dataclasses

    from nfnet_jax.training.trained import load_run

    run = load_run(workdir)
    facts = dataclasses.asdict(run.data_spec)
    return run.model, run.variables, facts.pop("image_shape"), facts


def _published(flags):
    """Network, variables, image shape and facts of published or converted weights."""
    from nfnet_jax.models.registry import find

    model, params = cli.load_published(flags)
    variant = find(model.spec.name)
    shape = (variant.test_size, variant.test_size, 3)
    facts = {"weights": flags.weights, "mean": variant.mean, "std": variant.std}
    return model, {"params": params}, shape, facts


if __name__ == "__main__":
    cli.run(main)
