"""Measures the signal in a network, block by block.

    python -m nfnet_jax.analyze --model nf_resnet50 --check 0.1 --output runs/signal
    python -m nfnet_jax.analyze --workdir runs/cifar10 --data config

At initialization with open branches, or the network of a trained run. Options of the
network are overrides of the config, such as --config.model.beta=var.
"""

import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from nfnet_jax import cli
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.strict_json import dumps

DATA = ("gaussian", "config")
LARGEST = 65536
DRAWS = 4
"""Further networks that tell a fault from what chance makes of few channels."""


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
        batch_size="images (default: 4, and up to 128 of images that are smaller "
        "than 256; or data.batch_size of the config)",
        output="directory for analysis.json, signal.png and signal.svg",
        check="largest share by which a block may leave its prediction, such as 0.1; "
        "names the cause of a network at initialization on noise",
        gradients="no: do not measure them, which takes most of time and memory",
        activations="PNG or SVG file to write: γ of every activation; no network",
    )
    tolerance = _check(flags, argv)
    if flags.activations:
        return _draw_activations(flags.activations)
    cli.prepare_jax()
    from nfnet_jax.analysis import follows_schedule, table

    subject = _subject(config, flags)
    if tolerance and not follows_schedule(subject.model):
        raise UserError(
            f"--check: {subject.name} is not built on the β schedule, expected an "
            "NF-ResNet, NFNet or NF-RegNet"
        )
    analysis = _analyze(subject, with_gradients=flags.gradients != "no")
    print(table(analysis))
    deviation, verdict = None, ""
    if tolerance:
        deviation, verdict = _judge(subject, analysis, tolerance)
    if flags.output:
        _write(analysis, deviation, flags.output)
    if deviation:
        sys.stderr.write(f"{verdict}\n")
        sys.exit(1)
    if verdict:
        print(verdict)


class _Subject(NamedTuple):
    """A network, its variables and the images to measure it on.

    `train` is the network's argument.

    `trained` and `real` (images, not noise) are where nothing is predicted. `draw`
    gives the variables of another seed.
    """

    name: str
    model: Any
    variables: Any
    images: Any
    labels: Any
    train: bool
    trained: bool
    real: bool
    draw: Callable[[int], Any] | None = None


def _check(flags, argv: list[str]) -> float | None:
    """The tolerance."""
    configured = any(re.match(r"--?(no)?config\b", a) for a in argv[1:])
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
    real = flags.data == "config"
    if run:
        name, variables = os.path.normpath(flags.workdir), run.variables
        return _Subject(name, run.model, variables, images, labels, False, True, real)
    model, draw = _initialized(config, images, classes)
    variables = draw(config.seed)
    # Untrained running statistics say nothing.
    train = "batch_stats" in variables
    name = config.model.name
    return _Subject(name, model, variables, images, labels, train, False, real, draw)


def _batch(config, flags, run):
    """Images, labels and the number of classes."""
    import jax

    from nfnet_jax.training.experiment import Experiment

    batch = cli.whole_number("batch_size", flags.batch_size, LARGEST)
    if flags.data == "config":
        config.data.batch_size = batch or config.data.batch_size
        experiment = Experiment(config, given_spec=run and run.data_spec)
        images, targets, _ = experiment.first_batch
        return images, targets.argmax(-1), experiment.dataset.num_classes
    side = cli.whole_number("image_size", flags.image_size, LARGEST) or 256
    channels = run.data_spec.image_shape[-1] if run else 3
    classes = run.model.spec.num_classes if run else config.model.num_classes or 10
    for_images, for_labels = jax.random.split(jax.random.key(config.seed + 1))
    # Small maps have few pixels to know a variance by.
    batch = batch or min(128, max(4, 4 * (256 // side) ** 2))
    images = jax.random.normal(for_images, (batch, side, side, channels))
    return images, jax.random.randint(for_labels, (len(images),), 0, classes), classes


def _initialized(config, images, classes: int):
    """The network, without dropout, and what draws its variables with open branches."""
    from nfnet_jax.analysis import open_branches
    from nfnet_jax.training.data_spec import DataSpec
    from nfnet_jax.training.experiment import Experiment

    config.model.stochastic_depth = config.model.drop_rate = 0.0
    spec = DataSpec.of_shape(images.shape[1:], classes)
    experiment = Experiment(config, given_spec=spec)

    def draw(seed: int):
        params, stats = experiment.init_variables(seed, images)
        variables = {"params": open_branches(params)}
        return variables | ({"batch_stats": stats} if stats else {})

    return experiment.model, draw


def _analyze(subject: _Subject, with_gradients: bool):
    from nfnet_jax.analysis import (
        Analysis,
        in_order,
        measure_gradients,
        predict_network,
    )

    signal = _measure(subject)
    gradients = None
    if with_gradients:
        gradients = measure_gradients(
            subject.model,
            subject.variables,
            subject.images,
            subject.labels,
            train=subject.train,
        )
        gradients = in_order(gradients, signal)
    predictions = predict_network(subject.model, signal)
    return Analysis(subject.name, signal, predictions, gradients)


def _measure(subject: _Subject, **options: Any):
    from nfnet_jax.analysis import block_pattern, measure

    return measure(
        subject.model,
        subject.variables,
        subject.images,
        blocks=block_pattern(subject.model),
        train=subject.train,
        **options,
    )


def _judge(subject: _Subject, analysis, tolerance: float):
    """The deviation that there is, None if none, and what to say of it.

    A cause is told of a network at initialization on noise alone. Whether borders or
    chance are the cause is measured: without the one, on average over the other.
    """
    from nfnet_jax.analysis import LEFT, NO_CAUSE, check

    deviation = check(analysis.signal, analysis.predictions, tolerance)
    within = f"check passed: every block is within {tolerance:.3g} of its prediction"
    if deviation is None:
        return None, within
    if subject.trained or subject.real:
        deviation = deviation._replace(cause=_differences(subject))
        return deviation, f"not as predicted: {deviation}"
    fault, found = _check_inside(subject, tolerance)
    if fault is None:
        height, width = subject.images.shape[1:3]
        cause = (
            f"Cause: the borders of images this small, {height}x{width}, where zero "
            "padding takes variance"
        )
        within += " where convolutions find no zeros beyond the edges"
        return None, f"{within}; as it is, {deviation._replace(cause=cause)}"
    if not fault.cause.startswith(NO_CAUSE):
        return fault, f"check failed: {fault}"
    drawn = _draw_ratios(subject, found)
    error = abs(drawn.mean(0) - 1)
    if (error > tolerance + 2 * drawn.std(0, ddof=1) / len(drawn) ** 0.5).any():
        fault = fault._replace(cause=f"{NO_CAUSE}{LEFT}: other draws deviate too")
    if (error > tolerance).any():
        return fault, f"check failed: {fault}"
    cause = "Cause: chance, as the channels are few"
    within += f" on average of {1 + DRAWS} drawn networks"
    return None, f"{within}; of this one, {fault._replace(cause=cause)}"


def _check_inside(subject: _Subject, tolerance: float):
    """The deviation where borders take nothing, and all ratios there."""
    from nfnet_jax.analysis import check, predict_network, ratios

    signal = _measure(subject, borders=False)
    predictions = predict_network(subject.model, signal)
    assert predictions is not None
    return check(signal, predictions, tolerance), ratios(signal, predictions)


def _draw_ratios(subject: _Subject, found):
    """The ratios `found`, and in further rows those of other draws of the network."""
    import numpy as np

    assert subject.draw is not None
    rows = [found]
    for seed in range(1, 1 + DRAWS):
        drawn = subject._replace(variables=subject.draw(2**31 + seed))
        rows.append(_check_inside(drawn, 1.0)[1])
    return np.stack(rows)


def _differences(subject: _Subject) -> str:
    """Why a prediction may not hold, by what was measured."""
    from nfnet_jax.analysis import differences

    found = [differences.of_training(subject.variables)] if subject.trained else []
    found += [differences.of_images(subject.images)] if subject.real else []
    return (
        "Predicted is a network at initialization on white noise, so that this is no "
        f"fault by itself: {'; '.join(found)}"
    )


def _write(analysis, deviation, output: str) -> None:
    from nfnet_jax.analysis import plot, to_json

    try:
        os.makedirs(output, exist_ok=True)
        with open(os.path.join(output, "analysis.json"), "w", encoding="utf-8") as file:
            file.write(dumps(to_json(analysis, deviation), indent=2) + "\n")
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
