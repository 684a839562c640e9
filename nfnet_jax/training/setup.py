"""From a checked config to data, plan, model, optimizer and state."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from nfnet_jax.config import model_overrides
from nfnet_jax.data.augment import normalize
from nfnet_jax.data.dataset import Dataset, check_name, load_dataset
from nfnet_jax.errors import UserError
from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import create_model
from nfnet_jax.optim.build import build_optimizer, describe_groups
from nfnet_jax.optim.schedules import warmup_then
from nfnet_jax.optim.tree import count
from nfnet_jax.training.facts import DataFacts
from nfnet_jax.training.plan import Plan, make_plan
from nfnet_jax.training.pretrained import Pretrained, start_from
from nfnet_jax.training.sharding import DeviceData, device_mesh, put_split, replicate
from nfnet_jax.training.state import TrainState, init_state, init_variables

FIRST_IMAGES = 512
"""As many images as a network is initialized with."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run needs; `description` is for people."""

    plan: Plan
    model: Network
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    state: TrainState
    train: DeviceData
    test: DeviceData
    facts: DataFacts
    description: str


def check_buildable(config: ConfigDict) -> None:
    """Checks what spans several keys, before data is loaded.

    Raises:
      UserError: unknown model, option or data set, or values that do not fit.
    """
    check_name(config.data.name)
    build_model(config, config.model.num_classes or 10)


def build_model(config: ConfigDict, num_classes: int) -> Network:
    """The network of `config.model`, whose own number of classes has precedence."""
    try:
        classes = config.model.num_classes or num_classes
        return create_model(config.model.name, classes, **model_overrides(config))
    except ValueError as error:
        raise UserError(f"model {config.model.name!r}: {error}") from error


def load_config_dataset(config: ConfigDict) -> Dataset:
    """The data set of `config.data`, of no more classes than the model has."""
    dataset = load_dataset(
        config.data.name,
        data_dir=config.data.dir and os.path.expanduser(config.data.dir),
        train_split=config.data.train_split,
        eval_split=config.data.eval_split,
        image_size=config.data.image_size,
    )
    classes = config.model.num_classes
    if classes and classes < dataset.num_classes:
        raise UserError(
            f"model.num_classes is {classes}, expected at least {dataset.num_classes}, "
            f"the classes of {config.data.name}"
        )
    return dataset


def set_up(
    config: ConfigDict,
    pretrained: Pretrained | None = None,
    facts: DataFacts | None = None,
) -> Run:
    """Builds everything that a run of `config` needs, started from `pretrained`.

    Images are normalized as `facts` of the same run say, else as for `pretrained`, else
    by the moments of the training split.

    Raises:
      UserError: data that cannot be had, or values that do not fit it, the model or the
        weights.
    """
    dataset = load_config_dataset(config)
    _check_augmentation(config, dataset.image_shape)
    if pretrained:
        _check_channels(config, dataset, len(pretrained.mean))
    plan = make_plan(config, len(dataset.train), jax.device_count())
    model = build_model(config, dataset.num_classes)
    mean, std = _moments(dataset, facts or pretrained)
    params, batch_stats = init_variables(
        model, config.seed, dataset.image_shape, _first_images(dataset, mean, std)
    )
    started = ""
    if pretrained:
        params, batch_stats, started = start_from(
            pretrained, params, batch_stats, config.model.weights
        )
    schedule = warmup_then(
        config.optim.schedule.name,
        config.optim.learning_rate,
        plan.warmup_steps,
        plan.steps,
        config.optim.schedule.final_fraction,
    )
    optimizer = build_optimizer(config.optim, params, schedule)
    mesh = device_mesh()
    return Run(
        plan=plan,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        state=replicate(init_state(params, batch_stats, optimizer), mesh),
        train=put_split(dataset.train, mean, std, mesh),
        test=put_split(dataset.test, mean, std, mesh),
        facts=DataFacts(
            tuple(mean.tolist()),
            tuple(std.tolist()),
            dataset.class_names,
            dataset.image_shape,
        ),
        description=(
            f"{config.model.name}: {count(params):,} parameters; {config.data.name}: "
            f"{len(dataset.train):,} training and {len(dataset.test):,} test images of "
            f"{dataset.image_shape}; {plan.steps} steps on {mesh.size} "
            f"{jax.default_backend()} device(s)\n"
            + started
            + describe_groups(config.optim, params)
        ),
    )


def _moments(
    dataset: Dataset, given: DataFacts | Pretrained | None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float32 [C], that images are normalized by."""
    if given is None:
        return dataset.mean, dataset.std
    return np.asarray(given.mean, np.float32), np.asarray(given.std, np.float32)


def _first_images(dataset: Dataset, mean: np.ndarray, std: np.ndarray) -> jax.Array:
    """Up to `FIRST_IMAGES` normalized images from all over the training split."""
    every = -(-len(dataset.train) // FIRST_IMAGES)
    return normalize(jnp.asarray(dataset.train.images[::every]), mean, std)


def _check_channels(config: ConfigDict, dataset: Dataset, channels: int) -> None:
    if dataset.image_shape[-1] != channels:
        raise UserError(
            f"{config.data.name} has images of {dataset.image_shape[-1]} channel(s), "
            f"model.weights {config.model.weights} are for {channels}"
        )


def _check_augmentation(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    side = min(image_shape[:2])
    augment = config.data.augment
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
