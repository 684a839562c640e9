"""Programs compiled for a target: memory, traffic, operations and estimated time."""

import dataclasses
import math
import re
import time
from typing import Any, NamedTuple

import jax
from jax.extend import core

from nfnet_jax.planning.costs import (
    accessed_bytes,
    computes,
    estimated_cycles,
    kernels,
    library_calls,
)
from nfnet_jax.planning.hlo import Program
from nfnet_jax.planning.target import Target, quiet
from nfnet_jax.planning.traffic import collective_bytes
from nfnet_jax.training.flops import inner_programs, matrix_flops
from nfnet_jax.utils.errors import UserError

LARGEST = 5
"""Number of buffers that are named when a program does not fit."""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_AMOUNT = r"([\d.]+)([KMGT]?)"


class Buffer(NamedTuple):
    """Memory of one array: bytes, shape, and the operation that makes it."""

    bytes: int
    shape: str
    operation: str


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """One compiled step. Bytes are of one device, `flops` of all together.

    `arguments`: state and batch. `temporary`: activations and gradients above all.
    `outputs`: results that no argument's memory is taken for. `code`: the program.
    None where the compiler gave up because they do not fit; then `needed` is the least
    that it knows of.
    `cycles`: estimate of the TPU compiler, without the time of collectives.
    `kernels`: launches of a GPU, of which `library_calls` are of cuDNN or cuBLAS.
    `bytes_accessed`: traffic with the memory. `largest`: buffers, if it does not fit.
    """

    examples: int
    flops: int
    needed: float
    fits: bool
    arguments: int
    temporary: int | None = None
    outputs: int | None = None
    code: int | None = None
    collectives: dict[str, float] = dataclasses.field(default_factory=dict)
    cycles: int | None = None
    seconds: float | None = None
    peak_share: float | None = None
    kernels: int | None = None
    library_calls: int | None = None
    bytes_accessed: float | None = None
    largest: tuple[Buffer, ...] = ()
    compile_seconds: float = 0.0

    @property
    def examples_per_second(self) -> float | None:
        """Images per second at the estimated time."""
        return self.examples / self.seconds if self.seconds else None


def compile_step(
    traced: jax.stages.Traced,
    target: Target,
    devices: int,
    *,
    examples: int,
    arguments: int,
    beside: int = 0,
) -> StepPlan:
    """Compiles a step that takes `examples` images with the compiler of `target`.

    `arguments` are its bytes of state and batch on a device; `beside`: bytes that are
    there meanwhile and are no arguments.
    """
    started = time.perf_counter()
    step = StepPlan(
        examples=examples,
        flops=matrix_flops(traced.jaxpr, target.platform),
        needed=arguments + beside,
        fits=False,
        arguments=arguments,
    )
    try:
        with quiet():
            lowered = traced.lower(lowering_platforms=(target.platform,))
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed, largest = read_refusal(str(error), arguments)
        largest = largest or largest_arrays(traced.jaxpr, target.platform)
        step = dataclasses.replace(step, needed=needed + beside, largest=largest)
    else:
        step = _with_memory(step, compiled, target.chip.memory, beside)
        step = _with_work(step, compiled.as_text() or "", target, devices)
    return dataclasses.replace(step, compile_seconds=time.perf_counter() - started)


def _with_memory(
    step: StepPlan, compiled: jax.stages.Compiled, available: float, beside: int
) -> StepPlan:
    memory: Any = compiled.memory_analysis()
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    needed = sum(parts.values()) + beside
    return dataclasses.replace(step, needed=needed, fits=needed <= available, **parts)


def _with_work(step: StepPlan, text: str, target: Target, devices: int) -> StepPlan:
    program = Program(text)
    step = dataclasses.replace(
        step,
        collectives=collective_bytes(text, devices),
        largest=() if step.fits else largest_buffers(program),
    )
    clock = target.chip.clock
    if not clock:
        counts = kernels(program)
        return dataclasses.replace(
            step,
            kernels=counts.total(),
            library_calls=library_calls(counts),
            bytes_accessed=accessed_bytes(program),
        )
    cycles = estimated_cycles(program).total()
    rate = step.flops / devices / (cycles / clock) if cycles else 0.0
    return dataclasses.replace(
        step,
        cycles=cycles,
        seconds=cycles / clock,
        peak_share=rate / target.hardware.flops,
    )


def largest_buffers(program: Program) -> tuple[Buffer, ...]:
    """The largest results, one of each shape, that are no arguments of the program."""
    found: dict[str, Buffer] = {}
    for _, item in program.run():
        shape = re.sub(r"\{[^}]*\}", "", item.shape)
        if computes(item) and not shape.startswith("("):
            found.setdefault(shape, Buffer(item.bytes, shape, item.operation))
    return tuple(sorted(found.values(), reverse=True)[:LARGEST])


def largest_arrays(jaxpr: core.ClosedJaxpr, platform: str) -> tuple[Buffer, ...]:
    """The largest arrays of a program that no compiler has seen, one of each shape."""
    found: dict[str, Buffer] = {}
    for path, equation in _equations(jaxpr.jaxpr, platform):
        for value in equation.outvars:
            array: Any = value.aval
            if hasattr(array, "dtype"):
                size = math.prod(array.shape) * array.dtype.itemsize
                shape = array.str_short(short_dtypes=True)
                found.setdefault(shape, Buffer(size, shape, path))
    return tuple(sorted(found.values(), reverse=True)[:LARGEST])


def _equations(jaxpr: core.Jaxpr, platform: str, path: str = ""):
    """Operations that hold no program, each with its path."""
    for equation in jaxpr.eqns:
        parts = (path, str(equation.source_info.name_stack), equation.primitive.name)
        name = "/".join(filter(None, parts))
        inner = inner_programs(equation, platform)
        if not inner:
            yield name, equation
        for program in inner:
            yield from _equations(program, platform, "/".join(filter(None, parts[:2])))


def read_refusal(message: str, arguments: int) -> tuple[float, tuple[Buffer, ...]]:
    """Bytes that a program needs, and its largest buffers, out of the error of a
    compiler for which it is too large.

    `arguments` are added where the error is about temporary memory alone.

    Raises:
      UserError: the compiler failed for another reason.
    """
    used = re.search(rf"Used {_AMOUNT} of|\({_AMOUNT}\) exceeds available", message)
    if "RESOURCE_EXHAUSTED" not in message or not used:
        first = message.partition("\n")[0]
        raise UserError(f"the compiler of the target failed: {first}")
    number, unit = (text for text in used.groups() if text is not None)
    buffers = re.findall(
        rf"Size: {_AMOUNT}\s*(?:Operator: op_name=\"([^\"]*)\".*?)?Shape: (\S+)",
        message,
        re.DOTALL,
    )
    needed = float(number) * _UNITS.get(unit, 1)
    return needed + (arguments if "HLO temporaries" in message else 0), tuple(
        Buffer(
            int(float(amount) * _UNITS.get(prefix, 1)),
            shape.partition("{")[0],
            operation,
        )
        for amount, prefix, operation, shape in buffers[:LARGEST]
    )
