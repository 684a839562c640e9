"""One run, assembled from its config: data, model, optimizer, state and compiled steps.

Training, evaluation, planning, reports and analysis all take their parts from here.
"""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nfnet_jax.config import check_config, model_overrides, to_json
from nfnet_jax.data.augment import check_augmentation, normalize
from nfnet_jax.data.augment.mixing import drawn_per_example
from nfnet_jax.data.batches import Batches, run_keys
from nfnet_jax.data.class_names import listed, missing_classes, relabel
from nfnet_jax.data.dataset import Dataset, EncodedSplit
from nfnet_jax.data.load import (
    check_name,
    check_preparable,
    encoded,
    find_dataset,
    load_dataset,
)
from nfnet_jax.data.loading import (
    check_stream,
    choose_loader,
    evaluation_batches,
    training_batches,
)
from nfnet_jax.models.network import Network, for_platform, rematerialized
from nfnet_jax.models.registry import create_model, find
from nfnet_jax.models.statistics import multiply_adds, training_multiply_adds
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.groups import ParameterGroups, parameter_groups
from nfnet_jax.optim.schedules import warmup_then
from nfnet_jax.optim.tree import Params, count
from nfnet_jax.training.data_spec import DataSpec
from nfnet_jax.training.flops import Work
from nfnet_jax.training.parallel import (
    compiler_options,
    device_mesh,
    jit_step,
    platform,
    pmap_step,
    shardings,
    whole_batch,
)
from nfnet_jax.training.pretrained import Pretrained, merge_pretrained
from nfnet_jax.training.state import TrainState, init_state, init_variables
from nfnet_jax.training.step import (
    Metrics,
    TrainingBatch,
    batch_gradients,
    draw_batch,
    loss,
    make_eval_step,
    step,
)
from nfnet_jax.training.timeline import (
    Timeline,
    differentiated_examples,
    make_timeline,
)
from nfnet_jax.utils.errors import UserError

FIRST_IMAGES = 512
"""Number of images that a network is initialized from, if it takes any."""


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """All parts of one run; each is built when first asked for, and once.

    given_dataset: taken instead of the one that `config.data` names.
    pretrained: weights to start from.
    given_spec: numbers the classes and normalizes the images as an earlier part of the
      same run did; the model then needs no data. Without it, images are normalized as
      for `pretrained`, else by the moments of the training split.
    given_mesh: devices of the run instead of all that JAX has; they need not be here
      for its steps to be compiled.

    Every part raises UserError for values that do not fit the data, the model or the
    weights.
    """

    config: ConfigDict
    given_dataset: Dataset | None = None
    pretrained: Pretrained | None = None
    given_spec: DataSpec | None = None
    given_mesh: Mesh | None = None

    # --- Checks before anything is loaded or built ----------------------------------

    def check_config(self) -> None:
        """Checks all that can be known before data are looked for.

        Raises:
          UserError: unknown model, option or data set, or values that do not fit.
        """
        config = self.config
        check_config(config)
        if self.given_dataset is None:
            check_name(config.data.name)
        build_model(config, 10)

    def check_data(self) -> None:
        """Checks the config against data that may not be here yet.

        Nothing is downloaded or decoded. Raises UserError as `dataset` and `timeline`.
        """
        config = self.config
        dataset = find_config_dataset(config)
        if dataset is None:
            check_preparable(config.data.name, config.data.dir)
            return
        _check_classes(config, dataset)
        if None not in dataset.image_shape:
            check_augmentation(
                config.data.augment, dataset.image_shape, config.train.small_size
            )
        make_timeline(config, len(dataset.train), self.mesh.size)

    # --- Data -----------------------------------------------------------------------

    @functools.cached_property
    def loaded_dataset(self) -> Dataset:
        """The data set with its own numbers of classes, not yet checked."""
        self.check_config()
        if self.given_dataset is None:
            return load_dataset(
                **_source_arguments(self.config),
                eval_image_size=self.config.data.eval_image_size,
                crop=self.config.data.crop,
                loader=choose_loader(self.config.data),
                max_bad_fraction=self.config.data.max_bad_fraction,
            )
        if choose_loader(self.config.data) == "stream":
            return encoded(self.given_dataset)
        return self.given_dataset

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data set with the run's numbers of classes; the config fits it."""
        config, dataset = self.config, self.loaded_dataset
        if self.given_spec:
            dataset = _renumbered(dataset, self.given_spec)
        _check_classes(config, dataset)
        check_stream(config.data, dataset)
        check_augmentation(
            config.data.augment, dataset.image_shape, config.train.small_size
        )
        channels = dataset.image_shape[-1]
        if self.pretrained and channels != len(self.pretrained.mean):
            raise UserError(
                f"{config.data.name} has images of {channels} channel(s), "
                f"model.weights {config.model.weights} are for "
                f"{len(self.pretrained.mean)}"
            )
        return dataset

    @functools.cached_property
    def data_spec(self) -> DataSpec:
        """Normalization, class names and image shape."""
        if self.given_spec:
            return self.given_spec
        return DataSpec.of_dataset(self.dataset, self.pretrained or self.dataset)

    @functools.cached_property
    def timeline(self) -> Timeline:
        return make_timeline(self.config, len(self.dataset.train), self.mesh.size)

    @functools.cached_property
    def train_batches(self) -> Batches:
        return training_batches(
            self.dataset.train,
            self.config.data,
            self.mesh,
            seed=self.config.seed,
            per_example=drawn_per_example(self.config.train),
            steps=self.timeline.batches,
        )

    @functools.cached_property
    def test_batches(self) -> Batches:
        return evaluation_batches(self.dataset.test, self.config.data, self.mesh)

    @functools.cached_property
    def first_batch(self) -> TrainingBatch:
        """The batch of the first update."""
        draw = jax.jit(self.make_draw())
        with contextlib.closing(self.train_batches.iterate(0)) as host_batches:
            return draw(next(host_batches), jnp.zeros((), jnp.int32))

    def make_draw(self, **options: Any) -> functools.partial[TrainingBatch]:
        """Returns `draw(host_batch, batch_index)`: `step.draw_batch` of this run."""
        if "batches" not in options:
            options["batches"] = self.train_batches
        return functools.partial(
            draw_batch,
            config=self.config,
            data_spec=self.data_spec,
            num_classes=self.model.spec.num_classes,
            view=whole_batch(self.mesh),
            **options,
        )

    # --- Model and optimizer --------------------------------------------------------

    @functools.cached_property
    def mesh(self) -> Mesh:
        return self.given_mesh or device_mesh()

    @functools.cached_property
    def model(self) -> Network:
        return build_model(self.config, len(self.data_spec.class_names))

    @functools.cached_property
    def abstract_variables(self) -> tuple[Params, Params]:
        """Shapes and dtypes of the parameters and the batch statistics."""
        return jax.eval_shape(
            functools.partial(
                init_variables,
                self.model,
                0,
                self.data_spec.image_shape,
                mesh=self.mesh,
            )
        )

    @functools.cached_property
    def groups(self) -> ParameterGroups:
        """Masks over the parameters, by treatment."""
        return parameter_groups(self.config.optim, self.abstract_variables[0])

    @functools.cached_property
    def schedule(self) -> optax.Schedule:
        """The learning rate of every update."""
        options = dict(self.config.optim.schedule.items())
        # In epochs; the timeline has it in steps.
        del options["warmup_epochs"]
        return warmup_then(
            peak=self.timeline.peak_rate,
            warmup_steps=self.timeline.warmup_steps,
            total_steps=self.timeline.steps,
            **options,
        )

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return build_optimizer(self.config.optim, self.schedule, self.groups)

    @functools.cached_property
    def work(self) -> Work:
        """Operations of the run, counted by tracing; nothing is computed."""
        small, shape = self.config.train.small_size, self.data_spec.image_shape

        def update(shape: tuple[int, int, int]) -> int:
            macs = training_multiply_adds(self.model, shape, self.groups.freeze)
            return 2 * macs * differentiated_examples(self.config)

        return Work(
            image=multiply_adds(self.model, shape),
            small=update((small, small, shape[-1])) if self.timeline.small_steps else 0,
            full=update(shape),
            small_steps=self.timeline.small_steps,
        )

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """The part of result.json that is known before the run."""
        return {
            "steps": self.timeline.steps,
            "parameters": count(self.abstract_variables[0]),
            "multiply_adds": self.work.image,
            "train_flops": self.work.between(0, self.timeline.steps),
            "dataset": self.config.data.name,
            "config": to_json(self.config),
        }

    # --- State ----------------------------------------------------------------------

    def init_variables(
        self, seed: int | None = None, images: jax.Array | None = None
    ) -> tuple[Params, Params]:
        """Returns fresh parameters and batch statistics, by default those of the run.

        `images` [N, H, W, C], normalized, replace those of the data set in networks
        that are initialized from images.
        """
        seed = self.config.seed if seed is None else seed
        if images is None:
            images = self._first_images()
        fsdp = self.config.parallel.fsdp
        shape = self.data_spec.image_shape
        return init_variables(self.model, seed, shape, images, fsdp, self.mesh)

    @functools.cached_property
    def state(self) -> TrainState:
        """State before the first update, whose memory the first step takes."""
        return self._start[0]

    @functools.cached_property
    def origin(self) -> str:
        """The line that says which parameters are pretrained; empty if none are."""
        return self._start[1] if self.pretrained else ""

    @functools.cached_property
    def _start(self) -> tuple[TrainState, str]:
        params, batch_stats = self.init_variables()
        origin = ""
        if self.pretrained:
            params, batch_stats, origin = merge_pretrained(
                self.pretrained,
                params,
                batch_stats,
                self.config.model.weights,
                self.data_spec.class_names,
            )
        fsdp = self.config.parallel.fsdp
        return init_state(params, batch_stats, self.optimizer, fsdp, self.mesh), origin

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state: the target of a restored one."""
        state = jax.eval_shape(
            functools.partial(init_state, optimizer=self.optimizer, mesh=self.mesh),
            *self.abstract_variables,
        )
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            state,
            shardings(self.mesh, state, self.config.parallel.fsdp),
        )

    def _first_images(self) -> jax.Array | None:
        """Up to `FIRST_IMAGES` normalized images, from all over the training split, for
        a network that is initialized from images; None for any other.

        Raises:
          UserError: it is one, and the split stays encoded.
        """
        if not find(self.config.model.name).initialized_from_images:
            return None
        train = self.dataset.train
        if isinstance(train, EncodedSplit):
            raise UserError(
                f"{self.config.model.name} takes its first parameters from images in "
                f"memory, and {self.dataset.name} is streamed: set data.loader=memory"
            )
        every = -(-len(train) // FIRST_IMAGES)
        return normalize(jnp.asarray(train.images[::every]), *self.data_spec.moments)

    # --- Compiled functions ---------------------------------------------------------

    @functools.cached_property
    def train_step(self) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
        """`train_step(state, host_batch)`, on images of the data's size."""
        return self.make_train_step()

    @functools.cached_property
    def small_step(self) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
        """The train step on images of `train.small_size`."""
        return self.make_train_step(image_size=self.config.train.small_size)

    def make_train_step(
        self,
        optimizer: optax.GradientTransformation | None = None,
        **options: Any,
    ) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
        """Compiles `train_step(state, host_batch)`: a draw of the batch, then `step`.

        `host_batch` is what `train_batches.iterate` yields for the batch
        `state.batch_index`; the state is donated. `optimizer` and the `options`
        `batches` and `image_size` of `draw_batch` replace those of the run.
        """
        config, groups = self.config, self.groups
        objective = functools.partial(
            loss,
            model=for_platform(self.model, platform(self.mesh)),
            frozen=groups.freeze,
            dropout_key=run_keys(config.seed).model,
            label_smoothing=config.train.label_smoothing,
        )
        draw = self.make_draw(**options)
        gradients = functools.partial(batch_gradients, objective, config.optim)
        one_step = functools.partial(
            step, config=config, optimizer=optimizer or self.optimizer, groups=groups
        )
        sharded = draw.keywords["batches"].sharded
        if config.parallel.mode == "pmap":
            return pmap_step(self.mesh, draw, gradients, one_step, sharded=sharded)
        return jit_step(
            self.mesh,
            draw,
            gradients,
            one_step,
            sharded=sharded,
            fsdp=config.parallel.fsdp,
            options=compiler_options(self.mesh, config.train.remat),
        )

    @functools.cached_property
    def eval_step(self) -> Callable[..., dict[str, jax.Array]]:
        return make_eval_step(
            for_platform(self.model, platform(self.mesh)),
            self.test_batches,
            self.data_spec,
            self.mesh,
            self.config.train.dtype,
        )

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Returns `accuracy` in [0, 1] and mean `loss` of the parameters on the test
        split, and with `_ema` those of their average."""
        variables = {
            name: {"params": params, "batch_stats": state.batch_stats}
            for name, params in (("", state.params), ("_ema", state.ema_params))
        }
        with contextlib.closing(self.test_batches.iterate(0)) as host_batches:
            sums = [
                {name: self.eval_step(v, batch, i) for name, v in variables.items()}
                for i, batch in enumerate(host_batches)
            ]
        totals = jax.tree.map(lambda *parts: float(sum(parts)), *jax.device_get(sums))
        return {
            f"{score}{name}": total[key] / total["examples"]
            for name, total in totals.items()
            for score, key in (("accuracy", "correct"), ("loss", "loss"))
        }


def build_model(config: ConfigDict, num_classes: int) -> Network:
    """Returns the network of `config.model`; its own number of classes has precedence.

    Raises:
      UserError: unknown name or option, or a value out of range.
    """
    try:
        classes = config.model.num_classes or num_classes
        model = create_model(config.model.name, classes, **model_overrides(config))
        return rematerialized(model) if config.train.remat == "block" else model
    except ValueError as error:
        raise UserError(f"model {config.model.name!r}: {error}") from error


def find_config_dataset(config: ConfigDict) -> Dataset | None:
    """Opens the data set of `config.data` as `find_dataset` does."""
    return find_dataset(**_source_arguments(config))


def _source_arguments(config: ConfigDict) -> dict[str, Any]:
    """Arguments that opening and loading a data set have in common."""
    return {
        "name": config.data.name,
        "data_dir": config.data.dir and os.path.expanduser(config.data.dir),
        "train_split": config.data.train_split,
        "eval_split": config.data.eval_split,
        "image_size": config.data.image_size,
    }


def _renumbered(dataset: Dataset, spec: DataSpec) -> Dataset:
    """The set with its classes numbered as in `spec`; missing ones go to stderr.

    Raises:
      UserError: it has other classes.
    """
    try:
        known = relabel(dataset, spec.class_names)
    except ValueError as error:
        raise UserError(
            f"{dataset.name} has other classes than the run, expected the "
            f"{len(spec.class_names)} that it was trained on or some of them: {error}"
        ) from error
    if missing := missing_classes(dataset.class_names, spec.class_names):
        sys.stderr.write(
            f"{dataset.name} has {len(dataset.class_names)} of the run's "
            f"{len(spec.class_names)} classes, not {listed(missing)}\n"
        )
    return known


def _check_classes(config: ConfigDict, dataset: Dataset) -> None:
    classes = config.model.num_classes
    if classes and classes < dataset.num_classes:
        raise UserError(
            f"model.num_classes is {classes}, expected at least {dataset.num_classes}, "
            f"the classes of {config.data.name}"
        )
