"""Compiled programs read from their text: estimated cycles, kernels, by operation.

The text is optimized HLO as `compiled.as_text()` gives it.
"""

import re
from collections import Counter
from collections.abc import Iterator

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%?([\w.\-]+) = .*? ([a-z][\w\-]*)\(")
_CALLED = re.compile(
    r"(?:body|to_apply|called_computations)=(%[\w.\-]+|\{[^}]*\})|"
    r"branch_computations=\{(%[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_OPERATION = re.compile(r'op_name="(?:[^"]*/)?([^"/]*)"')
_FUSED = re.compile(r"calls=%?([\w.\-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_ENTERED = ("while", "call", "conditional")
_FREE = "parameter constant bitcast get-tuple-element tuple after-all".split()
"""Opcodes that do nothing when the program runs."""
_LIBRARIES = {"__cudnn$": "cuDNN", "__cublas$": "cuBLAS"}
_FUSIONS = {"dot": "matrix product", "reduce": "reduction", "transpose": "transpose"}


def cycles(program: str) -> dict[str, int]:
    """Cycles that the TPU compiler estimates, by the last name of the operation.

    The largest come first. Bodies of loops count as often as they run, if the compiler
    knows it; collectives have no estimate.
    """
    totals: Counter[str] = Counter()
    for line, times in _executed(_computations(program)):
        if estimate := _CYCLES.search(line):
            name = _OPERATION.search(line)
            totals[name[1] if name else "unnamed"] += times * int(estimate[1])
    return dict(totals.most_common())


def kernels(program: str) -> dict[str, int]:
    """Kernels that a GPU runs, by kind; the most frequent come first.

    Kinds: cuDNN, cuBLAS, fusions by the first of matrix product, reduction and
    transpose that they contain, other fusions, and the opcode of what is not fused.
    """
    computations = _computations(program)
    totals: Counter[str] = Counter()
    for line, times in _executed(computations):
        opcode = _INSTRUCTION.match(line)[2]
        if opcode not in _FREE and not opcode.endswith("-done"):
            totals[_kind(computations, line, opcode)] += times
    return dict(totals.most_common())


def _kind(computations: dict[str, list[str]], line: str, opcode: str) -> str:
    if target := _TARGET.search(line):
        known = [kind for key, kind in _LIBRARIES.items() if key in target[1]]
        return known[0] if known else target[1]
    if opcode != "fusion":
        return opcode.removesuffix("-start")
    inside = "\n".join(computations[_FUSED.search(line)[1]])
    kinds = (kind for part, kind in _FUSIONS.items() if f" {part}(" in inside)
    return next(kinds, "other fusion")


def _computations(program: str) -> dict[str, list[str]]:
    """Lines of the instructions of every computation; the entry is called ""."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in program.splitlines():
        if header := _HEADER.match(line):
            lines = computations["" if header[1] else header[2]] = []
        elif _INSTRUCTION.match(line):
            lines.append(line)
    return computations


def _executed(
    computations: dict[str, list[str]], name: str = "", times: int = 1
) -> Iterator[tuple[str, int]]:
    """Lines that run, fusions as one, and how often; of branches the first."""
    for line in computations[name]:
        opcode = _INSTRUCTION.match(line)[2]
        if opcode not in _ENTERED:
            yield line, times
            continue
        trips = _TRIPS.search(line)
        for called in _CALLED.findall(line):
            for inner in re.findall(r"%([\w.\-]+)", "".join(called)):
                yield from _executed(
                    computations, inner, times * (int(trips[1]) if trips else 1)
                )
