"""Measures the network of a run: its signal, and its mistakes."""

import contextlib
import copy
import dataclasses
import functools
import heapq
import operator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from nfnet_jax.analysis import (
    BlockPrediction,
    Signal,
    block_pattern,
    measure,
    open_branches,
    predict_network,
)
from nfnet_jax.data.augment import normalize
from nfnet_jax.models.network import Network
from nfnet_jax.models.statistics import Counts, counts
from nfnet_jax.optim.tree import Params
from nfnet_jax.training.data_spec import find_data_spec
from nfnet_jax.training.experiment import Experiment, build_model
from nfnet_jax.training.parallel import WHOLE, gather, on_rows, split_batch
from nfnet_jax.training.trained import Trained, load_run
from nfnet_jax.utils.errors import UserError

SIGNAL_IMAGES = 64
"""Test images that the signal is measured on."""


class Mistake(NamedTuple):
    """A test image uint8 [H, W, C], its place in the split, its class, and the class
    that the network took it for with `probability`."""

    image: np.ndarray
    position: int
    label: int
    guess: int
    probability: float


class Tested(NamedTuple):
    """`confusion` int64 [classes, logits]: numbers of images by their class (row) and
    their prediction (column). `mistakes`: the most confident ones, surest first."""

    confusion: np.ndarray
    mistakes: tuple[Mistake, ...]

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.confusion.sum())


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Measurements of a run; None where something is missing, which `notes` name.

    `start` is the signal of the run's network at initialization with open branches,
    `predictions` are those of the β schedule for it, `end` is the signal of the
    checkpoint of update `step`.
    """

    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    planned_steps: int | None = None
    counts: Counts | None = None
    start: Signal | None = None
    predictions: tuple[BlockPrediction, ...] | None = None
    end: Signal | None = None
    step: int | None = None
    tested: Tested | None = None
    notes: tuple[str, ...] = ()


def measure_run(config: ConfigDict, workdir: str, most_mistakes: int) -> Measured:
    """Measures the run of `config` in `workdir`, as far as its files are there.

    Data or a checkpoint that cannot be had is a note, not an error.
    """
    try:
        run = Experiment(config, given_spec=find_data_spec(workdir))
        images = _first_test_images(run)
        start = _signal_at_start(run, images)
    except UserError as error:
        return Measured(notes=(f"Nothing is measured: {error}.",))
    measured = Measured(
        image_shape=run.data_spec.image_shape,
        planned_steps=run.timeline.steps,
        counts=counts(run.model, run.data_spec.image_shape),
        start=start,
        predictions=predict_network(run.model, start),
    )
    try:
        trained = load_run(workdir)
        # Where the batches of the test split are.
        everywhere = NamedSharding(run.mesh, WHOLE)
        variables = jax.device_put(trained.variables, everywhere)
        tested = _test(run, trained, variables, most_mistakes)
    except UserError as error:
        note = f"No trained network is measured: {error}."
        return dataclasses.replace(measured, notes=(note,))
    return dataclasses.replace(
        measured,
        class_names=trained.data_spec.class_names,
        end=_signal(trained.model, variables, images, train=False),
        step=trained.step,
        tested=tested,
    )


def _first_test_images(run: Experiment) -> jax.Array:
    """Normalized, [N, H, W, C]."""
    with contextlib.closing(run.test_batches.iterate(0)) as host_batches:
        images, labels, _ = run.test_batches.materialize(next(host_batches), 0)
    real = np.flatnonzero(np.asarray(labels) >= 0)[:SIGNAL_IMAGES]
    return normalize(images[real], *run.data_spec.moments)


def _signal_at_start(run: Experiment, images: jax.Array) -> Signal:
    params, batch_stats = run.init_variables()
    variables = {"params": open_branches(params)}
    if not batch_stats:
        return _signal(run.model, variables, images, train=False)
    # Running statistics are not trained yet: take the batch's, without dropout.
    variables["batch_stats"] = run.state.batch_stats
    quiet = copy.deepcopy(run.config)
    quiet.model.stochastic_depth = quiet.model.drop_rate = 0.0
    model = build_model(quiet, run.model.spec.num_classes)
    return _signal(model, variables, images, train=True)


def _signal(
    model: Network, variables: Params, images: jax.Array, train: bool
) -> Signal:
    return measure(model, variables, images, blocks=block_pattern(model), train=train)


def _test(
    run: Experiment, trained: Trained, variables: Params, most_mistakes: int
) -> Tested:
    """One pass over the test split, in the order of the images."""
    forward = functools.partial(trained.model.apply, train=False)

    @jax.jit
    def step(variables, host_batch, number):
        pixels, labels, positions = run.test_batches.materialize(host_batch, number)
        images = normalize(pixels, *run.data_spec.moments).astype(trained.dtype)
        images, labels = split_batch(run.mesh, images, labels)
        logits: Any = on_rows(run.mesh, forward)(gather(run.mesh, variables), images)
        return pixels, labels, positions, jax.nn.softmax(logits)

    columns = trained.model.spec.num_classes
    confusion = np.zeros((len(run.data_spec.class_names), columns), np.int64)
    mistakes: list[Mistake] = []
    with contextlib.closing(run.test_batches.iterate(0)) as host_batches:
        for number, host_batch in enumerate(host_batches):
            batch = jax.device_get(step(variables, host_batch, number))
            images, labels, positions, probabilities = batch
            real = labels >= 0
            guesses = probabilities.argmax(-1)
            np.add.at(confusion, (labels[real], guesses[real]), 1)
            surest = probabilities.max(-1)
            for i in np.flatnonzero(real & (guesses != labels) & np.isfinite(surest)):
                numbers = int(positions[i]), int(labels[i]), int(guesses[i])
                mistakes.append(Mistake(images[i], *numbers, float(surest[i])))
            by_probability = operator.attrgetter("probability")
            mistakes = heapq.nlargest(most_mistakes, mistakes, key=by_probability)
    return Tested(confusion, tuple(mistakes))
