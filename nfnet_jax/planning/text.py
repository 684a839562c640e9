"""Plans in words, for a terminal."""

from ml_collections import ConfigDict

from nfnet_jax.planning.compile import Forecast
from nfnet_jax.planning.hardware import HARDWARE, UTILIZATION, predict
from nfnet_jax.planning.plan import Plan
from nfnet_jax.planning.programs import StepPlan
from nfnet_jax.planning.target import GPU_SHARE, Target
from nfnet_jax.utils.units import percent, seconds, with_prefix


def describe_plan(config: ConfigDict, target: Target, plan: Plan) -> str:
    """Memory, traffic, operations and estimates of both steps."""
    versions = ", ".join(f"{name} {value}" for name, value in plan.versions.items())
    steps = [step for step in (plan.training, plan.evaluation) if step]
    took = sum(step.compile_seconds for step in steps)
    lines = [
        f"{config.model.name} on {target}: {plan.devices} x {plan.device_kind}, "
        f"{describe_run(config, plan)}",
        f"Compiled for it in {took:.0f} s ({versions}), and not run.",
        "",
        *_memory(target, plan),
        "",
        *_work("training", plan.training, target, plan.devices, config.train.dtype),
    ]
    if plan.evaluation:
        dtype = config.train.dtype
        lines += _work("evaluation", plan.evaluation, target, plan.devices, dtype)
    return "\n".join(lines)


def describe_run(config: ConfigDict, plan: Plan | Forecast) -> str:
    """Batch, images, and the options that memory depends on."""
    height, width, channels = plan.image_shape
    return (
        f"batch {config.data.batch_size}, images {height}x{width}x{channels}, "
        f"{plan.source}, {plan.classes} classes, {config.train.dtype}, remat "
        f"{config.train.remat}, accumulate {config.optim.accumulate}, fsdp "
        f"{config.parallel.fsdp}"
    )


def refusal(config: ConfigDict, target: Target, plan: Plan) -> str:
    """The line about a plan that does not fit: bytes needed, bytes there, remedies."""
    step = plan.evaluation if plan.training.fits else plan.training
    assert step
    name = "training" if step is plan.training else "evaluation"
    return (
        f"{config.model.name} does not fit on {target}: {name} with a batch of "
        f"{step.examples} needs {_needed(step)} of the "
        f"{with_prefix(plan.memory, 'B')} that programs may take on a device; try "
        f"{' or '.join(plan.remedies)}"
    )


def _memory(target: Target, plan: Plan) -> list[str]:
    lines = ["memory per device"]
    for name, size in plan.state.items():
        lines += _amount(name, size) if size else []
    lines += _amount("batch", plan.batch)
    for name, step in (("training", plan.training), ("evaluation", plan.evaluation)):
        if step is None:
            continue
        if step.temporary is not None:
            lines += _amount(f"temporary, {name}", step.temporary)
        verdict = "fits" if step.fits else "DOES NOT FIT"
        lines.append(
            f"  {name:22} {_needed(step):>10} of "
            f"{with_prefix(plan.memory, 'B')}: {verdict}"
        )
        lines += [
            f"    {with_prefix(buffer.bytes, 'B'):>10}  {buffer.shape}  "
            f"{buffer.operation}"
            for buffer in step.largest
        ]
    if target.is_gpu:
        lines.append(
            f"  (JAX takes {GPU_SHARE:.0%} of a card; XLA_PYTHON_CLIENT_MEM_FRACTION "
            "says otherwise)"
        )
    return lines


def _needed(step: StepPlan) -> str:
    """Bytes that a step needs; the least, where its compiler gave up."""
    least = "at least " if step.temporary is None else ""
    return least + with_prefix(step.needed, "B")


def _amount(name: str, size: float) -> list[str]:
    return [f"  {name:22} {with_prefix(size, 'B'):>10}"]


def _work(
    name: str, step: StepPlan, target: Target, devices: int, dtype: str
) -> list[str]:
    sent = ", ".join(
        f"{with_prefix(size, 'B')} by {kind}"
        for kind, size in sorted(step.collectives.items())
    )
    lines = [
        f"{name} of {step.examples} images: {with_prefix(step.flops, 'FLOP')}"
        + (f"; each device sends {sent}" if sent else "")
    ]
    if step.cycles and step.seconds:
        lines.append(
            f"  estimated by the compiler, sending left out: {step.cycles / 1e6:.3g} "
            f"million cycles, {seconds(step.seconds)}, "
            f"{step.examples_per_second:,.0f} images/s, {percent(step.peak_share, 1)} "
            "of the peak"
        )
    if step.kernels:
        lines.append(
            f"  {step.kernels} kernels, {step.library_calls} of them calls of cuDNN "
            f"or cuBLAS; {with_prefix(step.bytes_accessed, 'B')} read and written"
        )
        total = sum(step.collectives.values())
        found = predict(target.hardware, step.flops, total, 0, devices, dtype)
        lines.append(
            f"  predicted by arithmetic at {UTILIZATION:.0%} of the peak: "
            f"{seconds(found.seconds)}, {step.examples / found.seconds:,.0f} images/s"
        )
    return lines


def describe_forecast(config: ConfigDict, found: Forecast) -> str:
    """Memory, operations, traffic and predicted time of a step, without a target."""
    batch, dtype = config.data.batch_size, config.train.dtype
    lines = [
        f"{config.model.name} on {found.devices} device(s), "
        f"{describe_run(config, found)}; compiled in {found.compile_seconds:.0f} s",
        "by the compiler for CPUs, a stand-in: --target=v5e:2x2 or h100:8 asks another",
        "\nmemory per device",
    ]
    for name in ("parameters", "optimizer", "average", "batch", "working", "memory"):
        label = "all together" if name == "memory" else name
        lines.append(f"  {label:16} {with_prefix(getattr(found, name), 'B'):>10}")
    lines += [
        "  (working: that of a program for a CPU, which computes bfloat16 convolutions "
        "in\n  float32; the others are exact)",
        f"\noperations per step {with_prefix(found.flops, 'FLOP'):>10}",
    ]
    for name, sent in sorted(found.collectives.items()):
        lines.append(f"sent per device     {with_prefix(sent, 'B'):>10}  {name}")
    lines.append(f"\nPredicted, not measured, at {UTILIZATION:.0%} of the peak:")
    sent = sum(found.collectives.values())
    for name, chip in HARDWARE.items():
        step = predict(chip, found.flops, sent, found.memory, found.devices, dtype)
        lines.append(
            f"  {name:10} {seconds(step.seconds):>8} a step, "
            f"{seconds(step.computing)} computing and {seconds(step.sending)} sending, "
            f"{batch / step.seconds:9.0f} images/s"
            f"{'' if step.fits else f', but more than its {chip.memory / 1e9:g} GB'}"
        )
    return "\n".join(lines)
