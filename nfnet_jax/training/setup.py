"""From a checked config to data, plan, model, optimizer and state."""

import dataclasses
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from nfnet_jax.config import model_overrides
from nfnet_jax.data.augment.crops import normalize
from nfnet_jax.data.class_names import listed, missing_classes
from nfnet_jax.data.dataset import Dataset, EncodedSplit
from nfnet_jax.data.load import (
    check_name,
    check_preparable,
    encoded,
    find_dataset,
    load_dataset,
)
from nfnet_jax.data.loading.batches import Batches
from nfnet_jax.data.loading.loaders import (
    check_loader,
    check_shape,
    choose_loader,
    evaluation_batches,
    training_batches,
)
from nfnet_jax.data.relabel import relabel
from nfnet_jax.models.network import Network, rematerialized
from nfnet_jax.models.registry import create_model
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.schedules import warmup_then
from nfnet_jax.training.data_spec import DataFacts
from nfnet_jax.training.finetune import Pretrained, start_from
from nfnet_jax.training.parallel import device_mesh
from nfnet_jax.training.state import TrainState, init_state, init_variables
from nfnet_jax.training.timeline import Plan, make_plan
from nfnet_jax.utils.errors import UserError, no_directory

FIRST_IMAGES = 512
"""As many images as a network is initialized with."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run needs.

    `examples`: of the training and of the test split. `origin`: for people, which
    parameters are those of other weights; empty where none are.
    """

    plan: Plan
    model: Network
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    state: TrainState
    train: Batches
    test: Batches
    facts: DataFacts
    examples: tuple[int, int]
    origin: str


def check_buildable(config: ConfigDict, dataset: Dataset | None = None) -> None:
    """Checks what spans several keys, before data is loaded.

    Raises:
      UserError: unknown model, option or data set, or values that do not fit.
    """
    if dataset is None:
        check_name(config.data.name)
    check_loader(config)
    if config.parallel.fsdp and config.parallel.mode != "jit":
        raise UserError(
            f"parallel.fsdp is True with parallel.mode {config.parallel.mode!r}, "
            "expected mode 'jit': pmap keeps all of the state on every device"
        )
    build_model(config, config.model.num_classes or 10)


def build_model(config: ConfigDict, num_classes: int) -> Network:
    """The network of `config.model`, whose own number of classes has precedence."""
    try:
        classes = config.model.num_classes or num_classes
        model = create_model(config.model.name, classes, **model_overrides(config))
        return rematerialized(model) if config.train.remat == "block" else model
    except ValueError as error:
        raise UserError(f"model {config.model.name!r}: {error}") from error


def load_config_dataset(config: ConfigDict) -> Dataset:
    """The data set of `config.data`."""
    return load_dataset(
        **_where_and_what(config),
        eval_image_size=config.data.eval_image_size,
        crop=config.data.crop,
        loader=choose_loader(config),
        max_bad_fraction=config.data.max_bad_fraction,
    )


def look_in(config: ConfigDict, data_dir: str) -> None:
    """Lets the data of `config` lie in `data_dir`, the value of a flag --data_dir.

    Raises:
      UserError: it is no directory, has not the TFDS set, or the data are not files.
    """
    name = config.data.name
    if not name.startswith(("folder:", "tfds:")):
        raise UserError(
            f"--data_dir is {data_dir!r}, expected none: the data of the run, {name!r},"
            " lie in no directory"
        )
    if not os.path.isdir(os.path.expanduser(data_dir)):
        raise UserError(f"--data_dir is {data_dir!r}, {no_directory(data_dir)}")
    if name.startswith("folder:"):
        config.data.name = f"folder:{data_dir}"
        return
    from nfnet_jax.data.sources.tfds_builder import check_prepared

    check_prepared(name.removeprefix("tfds:"), data_dir)
    config.data.dir = data_dir


def as_trained(dataset: Dataset, facts: DataFacts) -> Dataset:
    """The set with its classes numbered as those of the run of `facts` are.

    Says on stderr which classes of the run it lacks.

    Raises:
      UserError: it has other classes.
    """
    try:
        known = relabel(dataset, facts.class_names)
    except ValueError as error:
        raise UserError(
            f"{dataset.name} has other classes than the run, expected the "
            f"{len(facts.class_names)} that it was trained on or some of them: {error}"
        ) from error
    if missing := missing_classes(dataset.class_names, facts.class_names):
        sys.stderr.write(
            f"{dataset.name} has {len(dataset.class_names)} of the run's "
            f"{len(facts.class_names)} classes, not {listed(missing)}\n"
        )
    return known


def find_config_dataset(config: ConfigDict) -> Dataset | None:
    """The data set of `config.data` by `find_dataset`."""
    return find_dataset(**_where_and_what(config))


def _where_and_what(config: ConfigDict) -> dict[str, Any]:
    """Arguments that opening and loading a data set have in common."""
    return {
        "name": config.data.name,
        "data_dir": config.data.dir and os.path.expanduser(config.data.dir),
        "train_split": config.data.train_split,
        "eval_split": config.data.eval_split,
        "image_size": config.data.image_size,
    }


def check_data(config: ConfigDict) -> None:
    """Checks what can be known of the data, and that the run fits it.

    Before anything is downloaded or decoded. Raises UserError as `set_up` would.
    """
    dataset = find_config_dataset(config)
    if dataset is None:
        check_preparable(config.data.name, config.data.dir)
        return
    _check_classes(config, dataset)
    if None not in dataset.image_shape:
        check_augmentation(config, dataset.image_shape)
    make_plan(config, len(dataset.train), jax.device_count())


def _check_classes(config: ConfigDict, dataset: Dataset) -> None:
    classes = config.model.num_classes
    if classes and classes < dataset.num_classes:
        raise UserError(
            f"model.num_classes is {classes}, expected at least {dataset.num_classes}, "
            f"the classes of {config.data.name}"
        )


def set_up(
    config: ConfigDict,
    pretrained: Pretrained | None = None,
    facts: DataFacts | None = None,
    dataset: Dataset | None = None,
) -> Run:
    """Builds everything that a run of `config` needs, started from `pretrained`.

    `dataset` replaces the one that `config.data` names.

    Classes are numbered and images normalized as `facts` of the same run say; without,
    images are as for `pretrained`, else by the moments of the training split.

    Raises:
      UserError: data that cannot be had, or values that do not fit it, the model or the
        weights.
    """
    if dataset is None:
        dataset = load_config_dataset(config)
    elif choose_loader(config) == "stream":
        dataset = encoded(dataset)
    if facts:
        dataset = as_trained(dataset, facts)
    _check_classes(config, dataset)
    check_shape(config, dataset)
    check_augmentation(config, dataset.image_shape)
    if pretrained:
        _check_channels(config, dataset, len(pretrained.mean))
    plan = make_plan(config, len(dataset.train), jax.device_count())
    model = build_model(config, dataset.num_classes)
    facts = data_facts(dataset, facts or pretrained)
    params, batch_stats = init_variables(
        model,
        config.seed,
        dataset.image_shape,
        _first_images(config, dataset, facts),
        config.parallel.fsdp,
    )
    origin = ""
    if pretrained:
        params, batch_stats, origin = start_from(
            pretrained,
            params,
            batch_stats,
            config.model.weights,
            dataset.class_names,
        )
    schedule = warmup_then(
        config.optim.schedule.name,
        plan.peak_rate,
        plan.warmup_steps,
        plan.steps,
        config.optim.schedule.final_fraction,
        config.optim.schedule.boundaries,
        config.optim.schedule.factor,
    )
    optimizer = build_optimizer(config.optim, params, schedule)
    mesh = device_mesh()
    return Run(
        plan=plan,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        state=init_state(params, batch_stats, optimizer, config.parallel.fsdp),
        train=training_batches(dataset.train, config, plan.batches, mesh),
        test=evaluation_batches(dataset.test, config, mesh),
        facts=facts,
        examples=(len(dataset.train), len(dataset.test)),
        origin=origin,
    )


def data_facts(
    dataset: Dataset, given: DataFacts | Pretrained | None = None
) -> DataFacts:
    """Normalized by the moments `given`, or else by those of the training split."""
    source = dataset if given is None else given
    mean, std = (
        tuple(np.asarray(moment, np.float32).tolist())
        for moment in (source.mean, source.std)
    )
    return DataFacts(mean, std, dataset.class_names, dataset.image_shape)


def _first_images(
    config: ConfigDict, dataset: Dataset, facts: DataFacts
) -> jax.Array | None:
    """Up to `FIRST_IMAGES` normalized images from all over the training split, for a
    network that is initialized from images; None for any other.

    Raises:
      UserError: it is one, and the split stays encoded.
    """
    if not config.model.name.startswith("nf_air_"):
        return None
    if isinstance(dataset.train, EncodedSplit):
        raise UserError(
            f"{config.model.name} takes its first parameters from images in memory,"
            f" and {dataset.name} is streamed: set data.loader=memory"
        )
    every = -(-len(dataset.train) // FIRST_IMAGES)
    return normalize(jnp.asarray(dataset.train.images[::every]), *facts.moments)


def _check_channels(config: ConfigDict, dataset: Dataset, channels: int) -> None:
    if dataset.image_shape[-1] != channels:
        raise UserError(
            f"{config.data.name} has images of {dataset.image_shape[-1]} channel(s), "
            f"model.weights {config.model.weights} are for {channels}"
        )


def check_augmentation(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Raises UserError where images of `image_shape` cannot be augmented as asked."""
    side = min(image_shape[:2])
    augment = config.data.augment
    if augment.randaugment.layers and image_shape[-1] not in (1, 3):
        raise UserError(
            f"data.augment.randaugment.layers is {augment.randaugment.layers}, "
            f"expected 0 for images of {image_shape[-1]} channels, not 1 or 3"
        )
    if augment.crop_padding >= side:
        raise UserError(
            f"data.augment.crop_padding is {augment.crop_padding}, expected less than "
            f"the {side} pixels of an image's side"
        )
    if augment.cutout > side:
        raise UserError(
            f"data.augment.cutout is {augment.cutout}, expected at most the {side} "
            "pixels of an image's side"
        )
    small = config.train.small_size
    if small and small > side:
        raise UserError(
            f"train.small_size is {small}, expected at most the {side} pixels of an "
            "image's side"
        )
