"""Costs of a compiled program as its text tells them: cycles, kernels, bytes."""

import re
from collections import Counter

from nfnet_jax.planning.hlo import Instruction, Program

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_FUSED = re.compile(r"calls=%?([\w.\-]+)")
_LIBRARIES = {"__cudnn$": "cuDNN", "__cublas$": "cuBLAS"}
_FUSIONS = {"dot": "matrix product", "reduce": "reduction", "transpose": "transpose"}
_FREE = {
    "parameter",
    "constant",
    "after-all",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
}
"""Opcodes that name memory or other instructions instead of computing something."""


def computes(instruction: Instruction) -> bool:
    """True if a GPU launches a kernel or a copy for the instruction."""
    opcode = instruction.opcode
    return opcode not in _FREE and not opcode.endswith("-done")


def estimated_cycles(program: Program) -> Counter[str]:
    """Cycles that the TPU compiler estimates, by the last name of the operation.

    Bodies of loops count as often as they run; collectives have no estimate.
    """
    totals: Counter[str] = Counter()
    for times, instruction in program.run():
        if estimate := _CYCLES.search(instruction.line):
            name = instruction.operation.rpartition("/")[2] or "unnamed"
            totals[name] += times * int(estimate[1])
    return totals


def kernels(program: Program) -> Counter[str]:
    """Kernels of a GPU in a run, by kind.

    Kinds: cuDNN, cuBLAS, fusions by the first of matrix product, reduction and
    transpose that they contain, other fusions, and the opcode of what is not fused.
    """
    totals: Counter[str] = Counter()
    for times, instruction in program.run():
        if computes(instruction):
            totals[_kind(program, instruction)] += times
    return totals


def library_calls(counts: Counter[str]) -> int:
    """Number of the kernels, as `kernels` counts them, that libraries bring."""
    return sum(counts[kind] for kind in _LIBRARIES.values())


def _kind(program: Program, instruction: Instruction) -> str:
    if target := _TARGET.search(instruction.line):
        known = (kind for key, kind in _LIBRARIES.items() if key in target[1])
        return next(known, target[1])
    if instruction.opcode != "fusion":
        return instruction.opcode.removesuffix("-start")
    fused = _FUSED.search(instruction.line)
    inside = program.computations.get(fused[1], []) if fused else []
    opcodes = {item.opcode for item in inside}
    kinds = (kind for opcode, kind in _FUSIONS.items() if opcode in opcodes)
    return next(kinds, "other fusion")


def accessed_bytes(program: Program) -> int:
    """Bytes that the kernels of a run read and write, each argument and result once."""
    sizes = {item.name: item.bytes for item in program.instructions}
    return sum(
        times * (item.bytes + sum(sizes.get(name, 0) for name in item.operands))
        for times, item in program.run()
        if computes(item)
    )
