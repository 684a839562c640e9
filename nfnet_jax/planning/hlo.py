"""Optimized HLO, as `compiled.as_text()` gives it, read line by line."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\("
)
_CALLED = re.compile(
    r"(body|calls|to_apply|branch_computations|called_computations)="
    r"(%[\w.\-]+|\{[^}]*\})"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_LIMIT = re.compile(r"%([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")


class Instruction(NamedTuple):
    """One line of a program: `name` = `shape` `opcode`(...), in the text `line`.

    `shape` is a text such as "bf16[64,32]{1,0}" or a tuple of them in brackets.
    """

    name: str
    shape: str
    opcode: str
    line: str

    @property
    def bytes(self) -> int:
        """Size of the result."""
        return size(self.shape)

    @property
    def operation(self) -> str:
        """Path of the JAX operation that it comes from, or "" if it has none."""
        found = re.search(r'op_name="([^"]*)"', self.line)
        return found[1] if found else ""

    @property
    def operands(self) -> list[str]:
        """Names of its arguments."""
        inside = self.line.split(f" {self.opcode}(", 1)[1].split("), ", 1)[0]
        return re.findall(r"%([\w.\-]+)", inside)


class Program:
    """Computations of a program by name, each a list of instructions."""

    def __init__(self, text: str):
        self.header = text.partition("\n")[0]
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = name = ""
        for line in text.splitlines():
            if header := _HEADER.match(line):
                name = header[2]
                self.computations[name] = []
                self.entry = name if header[1] else self.entry
            elif name and (found := _INSTRUCTION.match(line)):
                self.computations[name].append(
                    Instruction(found[1], found[2], found[3], line)
                )

    @property
    def instructions(self) -> Iterator[Instruction]:
        """All instructions, in whatever computation."""
        for computation in self.computations.values():
            yield from computation

    def run(self, fusions: bool = False) -> Iterator[tuple[int, Instruction]]:
        """Instructions of the entry computation and of those that it calls, each with
        the number of times that it runs; loops of unknown length count once.

        `fusions`: those inside of fused and reducing computations, too.
        """
        yield from self._run(self.entry, 1, fusions)

    def _run(self, name: str, times: int, fusions: bool):
        for instruction in self.computations.get(name, ()):
            yield times, instruction
            opcode, line = instruction.opcode, instruction.line
            if not fusions and opcode not in ("while", "conditional", "call"):
                continue
            repeats = times * (self._trips(line) if opcode == "while" else 1)
            for _, called in _CALLED.findall(line):
                for inner in re.findall(r"%([\w.\-]+)", called):
                    yield from self._run(inner, repeats, fusions)

    def _trips(self, line: str) -> int:
        """Runs of a loop's body: as the compiler notes it, or else the constant that
        its condition compares a counter with, which JAX starts at 0."""
        if known := _TRIPS.search(line):
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", line)
        lines = self.computations.get(condition[1], []) if condition else []
        limits = {
            found[1]: int(found[2])
            for item in lines
            if (found := _LIMIT.search(item.line))
        }
        for item in lines:
            if item.opcode == "compare" and "direction=LT" in item.line:
                return limits.get(item.operands[-1], 1)
        return 1


def size(shapes: str) -> int:
    """Bytes of all arrays in a text such as (f32[2,3]{1,0}, bf16[4])."""
    total = 0
    for kind, dimensions in arrays(shapes):
        bits = re.search(r"\d+", kind)
        itemsize = max(1, int(bits[0]) // 8) if bits else 1
        total += itemsize * math.prod(dimensions)
    return total


def arrays(shapes: str) -> list[tuple[str, tuple[int, ...]]]:
    """Dtypes and dimensions of the arrays in a text such as (f32[2,3]{1,0}, s32[])."""
    return [
        (kind, tuple(map(int, filter(None, sides.split(",")))))
        for kind, sides in _ARRAY.findall(shapes)
    ]
