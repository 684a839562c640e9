"""Measures the signal in a network, block by block.

    python -m nfnet_jax.analyze --model nf_resnet50 --check 0.1 --output runs/signal
    python -m nfnet_jax.analyze --workdir runs/cifar10 --data config

At initialization with open branches, or the network of a trained run. Options of the
network are overrides of the config, such as --config.model.beta=var.
"""

import json
import math
import os
import sys
from typing import Any, NamedTuple

from nfnet_jax import cli
from nfnet_jax.errors import UserError

DATA = ("gaussian", "config")
LARGEST = 65536


def main(argv: list[str]) -> None:
    """Prints the table, writes --output, exits with code 1 where --check fails."""
    config, flags = cli.parse_config_flags(
        argv,
        about=__doc__,
        file_needed=False,
        model="name of a network, instead of the config's",
        workdir="of a run of nfnet_jax.train, whose network to measure as it is",
        data="gaussian: noise (default); config: the first training batch of the run",
        image_size="side of the noise images in pixels (default: 256)",
        batch_size="images (default: 4, or data.batch_size of the config)",
        output="directory for analysis.json, signal.png and signal.svg",
        check="largest share by which a block may leave its prediction, such as 0.1",
        gradients="no: do not measure them, which takes most of time and memory",
        activations="PNG or SVG file to write: γ of every activation; no network",
    )
    tolerance = _check(flags, argv)
    if flags.activations:
        return _draw_activations(flags.activations)
    cli.prepare_jax()
    from nfnet_jax.analysis import check, follows_schedule, table

    subject = _subject(config, flags)
    if tolerance and not follows_schedule(subject.model):
        raise UserError(
            f"--check: {subject.name} is not built on the β schedule, expected an "
            "NF-ResNet, NFNet or NF-RegNet"
        )
    analysis = _analyze(subject, with_gradients=flags.gradients != "no")
    print(table(analysis))
    deviation = tolerance and check(analysis.signal, analysis.predictions, tolerance)
    if flags.output:
        _write(analysis, deviation, flags.output)
    if deviation:
        sys.stderr.write(f"check failed: {deviation}\n")
        sys.exit(1)
    if tolerance:
        print(f"check passed: every block is within {tolerance:.3g} of its prediction")


class _Subject(NamedTuple):
    """What to measure, on which images; `train` as the network's argument."""

    name: str
    model: Any
    variables: Any
    images: Any
    labels: Any
    train: bool


def _check(flags, argv: list[str]) -> float | None:
    """The tolerance."""
    configured = any(a.lstrip("-").startswith(("config", "noconfig")) for a in argv[1:])
    if flags.workdir and (flags.model or configured):
        raise UserError("--workdir excludes --model and --config, expected one of them")
    if not (flags.workdir or flags.model or configured or flags.activations):
        raise UserError(
            "no network, expected --model, --config, --workdir or --activations"
        )
    if flags.data not in (None, *DATA):
        raise UserError(f"--data is {flags.data!r}, expected one of {', '.join(DATA)}")
    if flags.gradients not in (None, "yes", "no"):
        raise UserError(f"--gradients is {flags.gradients!r}, expected yes or no")
    if flags.data == "config" and flags.image_size:
        raise UserError(
            "--image_size is of noise, expected --config.data.image_size with "
            "--data=config"
        )
    for name in ("image_size", "batch_size"):
        cli.whole_number(name, flags[name].value, LARGEST)
    if flags.output or flags.activations:
        from nfnet_jax.analysis.plot import check_matplotlib

        check_matplotlib()
    return _tolerance(flags.check)


def _tolerance(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise UserError(f"--check is {text!r}, expected a number between 0 and 1")
    return value


def _subject(config, flags) -> _Subject:
    from nfnet_jax.training.trained import load_run
    from nfnet_jax.training.workdir import read_config

    run = None
    if flags.workdir:
        config, run = read_config(flags.workdir), load_run(flags.workdir)
    elif flags.model:
        config.model.name = flags.model
    images, labels, classes = _batch(config, flags, run)
    if run:
        name, variables = os.path.normpath(flags.workdir), run.variables
        return _Subject(name, run.model, variables, images, labels, False)
    model, variables = _initialized(config, images, classes)
    # Untrained running statistics say nothing.
    train = "batch_stats" in variables
    return _Subject(config.model.name, model, variables, images, labels, train)


def _batch(config, flags, run):
    """Images, labels and the number of classes."""
    import jax

    from nfnet_jax.training.preview import draw_first_batch

    batch = cli.whole_number("batch_size", flags.batch_size, LARGEST)
    if flags.data == "config":
        config.data.batch_size = batch or config.data.batch_size
        dataset, images, targets = draw_first_batch(config, run and run.facts)
        return images, targets.argmax(-1), dataset.num_classes
    side = cli.whole_number("image_size", flags.image_size, LARGEST) or 256
    channels = run.facts.image_shape[-1] if run else 3
    classes = run.model.spec.num_classes if run else config.model.num_classes or 10
    for_images, for_labels = jax.random.split(jax.random.key(config.seed + 1))
    images = jax.random.normal(for_images, (batch or 4, side, side, channels))
    return images, jax.random.randint(for_labels, (len(images),), 0, classes), classes


def _initialized(config, images, classes: int):
    """The network, without dropout, and its variables with open branches."""
    from nfnet_jax.analysis import open_branches
    from nfnet_jax.training.setup import build_model
    from nfnet_jax.training.state import init_variables

    config.model.stochastic_depth = config.model.drop_rate = 0.0
    model = build_model(config, classes)
    params, batch_stats = init_variables(model, config.seed, images.shape[1:], images)
    variables = {"params": open_branches(params)}
    return model, variables | ({"batch_stats": batch_stats} if batch_stats else {})


def _analyze(subject: _Subject, with_gradients: bool):
    from nfnet_jax.analysis import (
        Analysis,
        block_pattern,
        in_order,
        measure,
        measure_gradients,
        predict_network,
    )

    name, model, variables, images, labels, train = subject
    blocks = block_pattern(model)
    signal = measure(model, variables, images, blocks=blocks, train=train)
    gradients = None
    if with_gradients:
        gradients = measure_gradients(model, variables, images, labels, train=train)
        gradients = in_order(gradients, signal)
    return Analysis(name, signal, predict_network(model, signal), gradients)


def _write(analysis, deviation, output: str) -> None:
    from nfnet_jax.analysis import plot, to_json

    try:
        os.makedirs(output, exist_ok=True)
        with open(os.path.join(output, "analysis.json"), "w", encoding="utf-8") as file:
            json.dump(to_json(analysis, deviation), file, indent=2)
    except OSError as error:
        raise UserError(f"--output: {output!r}: {error.strerror}") from error
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
