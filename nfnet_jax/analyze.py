"""Measures the signal in a network, block by block.

    python -m nfnet_jax.analyze --model nf_resnet50 --check 0.1 --output runs/signal
    python -m nfnet_jax.analyze --workdir runs/cifar10 --data config

At initialization with open branches, or the network of a trained run. Options of the
network are overrides of the config, such as --config.model.beta=var.
"""

import os
import sys

from nfnet_jax import cli
from nfnet_jax.config.kinds import Choice, Float, Int
from nfnet_jax.utils.errors import UserError


def main(argv: list[str]) -> None:
    """Prints the table, writes --output, exits with code 1 where --check fails."""
    flags = cli.parse(
        argv,
        __doc__,
        config="optional",
        model="name of a network, instead of the config's",
        workdir="directory of a run of nfnet_jax.train, whose network to measure",
        data=Choice(
            "gaussian",
            "images: noise, or the first training batch of the config",
            ("gaussian", "config"),
        ),
        image_size=Int(
            None, "side of the noise images in pixels (default: 256)", "[1, 65536]"
        ),
        batch_size=Int(
            None,
            "number of images (default: 4 noise images, up to 128 if smaller than 256 "
            "pixels; or the config's data.batch_size)",
            "[1, 65536]",
        ),
        output="directory for analysis.json, signal.png and signal.svg",
        check=Float(
            None,
            "largest share by which a block may leave its prediction, such as 0.1; the "
            "cause is named for a network at initialization on noise",
            "(0, 1)",
        ),
        gradients=Choice(
            "yes",
            "measure gradients too, which takes most of the time and memory",
            ("yes", "no"),
        ),
        activations="PNG or SVG file to draw γ of every activation to; no network",
    )
    _check(flags)
    if flags.activations:
        return _draw_activations(flags.activations)
    cli.prepare_jax()
    from nfnet_jax.analysis import follows_schedule, table
    from nfnet_jax.analysis.subject import analyze, judge

    subject = _subject(flags.config, flags)
    if flags.check and not follows_schedule(subject.model):
        raise UserError(
            f"--check: {subject.name} is not built on the β schedule, expected an "
            "NF-ResNet, NFNet or NF-RegNet"
        )
    analysis = analyze(subject, with_gradients=flags.gradients == "yes")
    print(table(analysis))
    deviation, verdict = None, ""
    if flags.check:
        deviation, verdict = judge(subject, analysis, flags.check)
    if flags.output:
        _write(analysis, deviation, flags.output)
    if deviation:
        sys.stderr.write(f"{verdict}\n")
        sys.exit(1)
    if verdict:
        print(verdict)


def _check(flags) -> None:
    if flags.workdir and (flags.model or flags.config_flags):
        raise UserError("--workdir excludes --model and --config, expected one of them")
    if not (flags.workdir or flags.model or flags.config_flags or flags.activations):
        raise UserError(
            "no network, expected --model, --config, --workdir or --activations"
        )
    if flags.data == "config" and flags.image_size:
        raise UserError(
            "--image_size is for noise, expected --config.data.image_size with "
            "--data=config"
        )


def _subject(config, flags):
    from nfnet_jax.analysis import open_branches
    from nfnet_jax.analysis.subject import Subject
    from nfnet_jax.training.data_spec import DataSpec
    from nfnet_jax.training.experiment import Experiment
    from nfnet_jax.training.trained import load_run
    from nfnet_jax.training.workdir import read_config

    run = None
    if flags.workdir:
        config, run = read_config(flags.workdir), load_run(flags.workdir)
    elif flags.model:
        config.model.name = flags.model
    images, labels, classes = _batch(config, flags, run)
    real = flags.data == "config"
    if run:
        name, variables = os.path.normpath(flags.workdir), run.variables
        return Subject(name, run.model, variables, images, labels, False, True, real)
    config.model.stochastic_depth = config.model.drop_rate = 0.0
    spec = DataSpec.of_shape(images.shape[1:], classes)
    experiment = Experiment(config, given_spec=spec)

    def draw(seed: int):
        params, stats = experiment.init_variables(seed, images)
        variables = {"params": open_branches(params)}
        return variables | ({"batch_stats": stats} if stats else {})

    name, model, variables = config.model.name, experiment.model, draw(config.seed)
    # Untrained running statistics say nothing.
    train = "batch_stats" in variables
    return Subject(name, model, variables, images, labels, train, False, real, draw)


def _batch(config, flags, run):
    """Images, labels and the number of classes."""
    import jax

    from nfnet_jax.training.experiment import Experiment

    batch = flags.batch_size
    if flags.data == "config":
        config.data.batch_size = batch or config.data.batch_size
        experiment = Experiment(config, given_spec=run and run.data_spec)
        images, targets, _ = experiment.first_batch
        return images, targets.argmax(-1), experiment.dataset.num_classes
    side = flags.image_size or 256
    channels = run.data_spec.image_shape[-1] if run else 3
    classes = run.model.spec.num_classes if run else config.model.num_classes or 10
    for_images, for_labels = jax.random.split(jax.random.key(config.seed + 1))
    # Small maps have few pixels to estimate a variance from.
    batch = batch or min(128, max(4, 4 * (256 // side) ** 2))
    images = jax.random.normal(for_images, (batch, side, side, channels))
    return images, jax.random.randint(for_labels, (len(images),), 0, classes), classes


def _write(analysis, deviation, output: str) -> None:
    from nfnet_jax.analysis import plot, to_json
    from nfnet_jax.training.workdir import write_json, writing

    with writing(output, "--output"):
        os.makedirs(output, exist_ok=True)
        write_json(f"{output}/analysis.json", to_json(analysis, deviation))
    for extension in ("png", "svg"):
        plot([analysis], os.path.join(output, f"signal.{extension}"))
    print(f"{output}: analysis.json, signal.png, signal.svg")


def _draw_activations(path: str) -> None:
    from nfnet_jax.analysis import plot_activations
    from nfnet_jax.layers.activations import ACTIVATIONS, activation_gain

    plot_activations(ACTIVATIONS, path)
    for name, fn in sorted(ACTIVATIONS.items()):
        print(f"{name:14} {activation_gain(fn):.6f}")
    print(path)


if __name__ == "__main__":
    cli.run(main)
