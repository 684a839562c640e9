"""Plan of a run on a target: both of its steps compiled, and the batch that fits."""

import copy
import dataclasses
import importlib.metadata
from collections.abc import Callable

from ml_collections import ConfigDict

from nfnet_jax.planning.abstract import AbstractRun, data_shape, device_bytes
from nfnet_jax.planning.programs import StepPlan, compile_step
from nfnet_jax.planning.remedies import remedies
from nfnet_jax.planning.target import Target, target_mesh
from nfnet_jax.training.timeline import make_timeline
from nfnet_jax.utils.errors import UserError

PRECISION = 8
"""The search for a batch ends when the next size is less than 1 / `PRECISION` away."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Needs of a run on `target`. Bytes are per device.

    `state`: bytes by kind. `batch`: bytes of a host batch. `memory`: bytes that
    programs may take there. `evaluation` is None where training does not fit.
    `remedies`: what may make it fit. `versions`: those of the compiler's wheels.
    """

    target: str
    devices: int
    device_kind: str
    image_shape: tuple[int, int, int]
    classes: int
    source: str
    batch_size: int
    memory: float
    state: dict[str, int]
    batch: int
    training: StepPlan
    evaluation: StepPlan | None
    remedies: tuple[str, ...]
    versions: dict[str, str]

    @property
    def fits(self) -> bool:
        """True if both steps do."""
        return self.training.fits and bool(self.evaluation and self.evaluation.fits)

    def values(self) -> dict:
        """All numbers, as JSON can hold them."""
        steps = {
            name: dataclasses.asdict(step)
            | {"examples_per_second": step.examples_per_second}
            for name in ("training", "evaluation")
            if (step := getattr(self, name))
        }
        return dataclasses.asdict(self) | steps | {"fits": self.fits}


def make_plan(
    config: ConfigDict,
    target: Target,
    image_shape: tuple[int, int, int] | None = None,
) -> Plan:
    """Compiles the train and the evaluation step of `config` for `target`.

    Images arrive as from a stream, with the numbers of `data_shape`.

    Raises:
      UserError: values that do not fit together, `parallel.mode` pmap, or a topology
        that does not exist.
    """
    run = AbstractRun(config, data_shape(config, image_shape), target_mesh(target))
    return _plan(run, target, _training(run, target))


def largest_batch(
    config: ConfigDict,
    target: Target,
    image_shape: tuple[int, int, int] | None = None,
    report: Callable[[StepPlan], None] = lambda step: None,
) -> Plan:
    """The plan with the largest `data.batch_size` that fits, to an eighth of itself.

    `report` gets every train step that is compiled on the way. Where no batch fits, the
    plan is that of the smallest.

    Raises:
      UserError: as `make_plan`.
    """
    data, mesh = data_shape(config, image_shape), target_mesh(target)
    steps: dict[int, StepPlan] = {}

    def run(size: int) -> AbstractRun:
        changed = copy.deepcopy(config)
        changed.data.batch_size = size
        return AbstractRun(changed, data, mesh)

    def compile_batch(size: int) -> StepPlan:
        steps[size] = _training(run(size), target)
        report(steps[size])
        return steps[size]

    def valid(most: int) -> int:
        return valid_batch(config, most, data.examples, mesh.size)

    size = search(compile_batch, valid, config.data.batch_size, target.chip.memory)
    return _plan(run(size), target, steps[size])


def search(
    compile_batch: Callable[[int], StepPlan],
    valid: Callable[[int], int],
    start: int,
    memory: float,
) -> int:
    """The largest batch that fits, to an eighth of itself; if none does, the smallest.

    `valid(n)` is the largest batch that the run can have up to n, or the smallest of
    all. What a step needs beside its arguments guides the next size.
    """
    fits, fails = 0, 0
    size = valid(start)
    while True:
        step = compile_batch(size)
        working = max(step.needed - step.arguments, 1)
        share = max(memory - step.arguments, 0) / working
        if step.fits:
            fits = size
        else:
            fails = size
        larger = fits * max(2, int(share))
        if not fits:
            most = int(fails * min(share, 0.5))
        elif not fails or larger < fails:
            most = larger
        else:
            most = (fits + fails) // 2
        size = valid(_round_down(most))
        if size in (fits, fails) or fits and 0 < fails - fits <= fits // PRECISION:
            return fits or size


def _round_down(number: int) -> int:
    """The same number with its four leading binary digits only."""
    unit = 2 ** max(0, number.bit_length() - 4)
    return number // unit * unit


def valid_batch(
    config: ConfigDict, most: int, examples: int | None, devices: int
) -> int:
    """The largest batch up to `most` that microbatches, SAM and devices divide, or the
    smallest of all. `examples` of the training split are the limit, where known."""
    unit = config.optim.accumulate * devices
    changed = copy.deepcopy(config)
    sizes = range(min(most, examples or most) // unit * unit, 0, -unit)
    for changed.data.batch_size in (*sizes, unit):
        try:
            make_timeline(changed, examples or changed.data.batch_size, devices)
        except UserError:
            continue
        return changed.data.batch_size
    return unit


def _training(run: AbstractRun, target: Target) -> StepPlan:
    traced, arguments = run.trace_training()
    return compile_step(
        traced,
        target,
        run.mesh.size,
        examples=run.config.data.batch_size,
        arguments=device_bytes(arguments),
    )


def _evaluation(run: AbstractRun, target: Target) -> StepPlan:
    traced, (variables, host_batch) = run.trace_evaluation()
    state = device_bytes(run.experiment.abstract_state)
    return compile_step(
        traced,
        target,
        run.mesh.size,
        examples=len(host_batch[1]),
        arguments=device_bytes((variables, host_batch)),
        beside=state - device_bytes(variables),
    )


def _plan(run: AbstractRun, target: Target, training: StepPlan) -> Plan:
    state = run.experiment.abstract_state
    memory, devices = target.chip.memory, run.mesh.size
    evaluation = _evaluation(run, target) if training.fits else None
    advice: list[str] = []
    if not training.fits:
        advice = remedies(run.config, target, devices, training, memory)
    elif evaluation and not evaluation.fits:
        advice = [f"--config.data.eval_batch_size={evaluation.examples // 2}"]
    return Plan(
        target=str(target),
        devices=devices,
        device_kind=run.mesh.devices.flat[0].device_kind,
        image_shape=run.data.image,
        classes=run.classes,
        source=run.data.source,
        batch_size=run.config.data.batch_size,
        memory=memory,
        state={
            "parameters": device_bytes(state.params),
            "optimizer": device_bytes(state.opt_state),
            "average": device_bytes(state.ema_params),
            "statistics": device_bytes(state.batch_stats),
        },
        batch=device_bytes(run.host_batch()),
        training=training,
        evaluation=evaluation,
        remedies=tuple(advice),
        versions={
            name: importlib.metadata.version(name)
            for name in ("nfnet_jax", "jax", *target.wheels)
        },
    )
