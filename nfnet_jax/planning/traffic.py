"""Traffic between devices: bytes that a compiled program sends, read from its text."""

import math
import re
from collections import Counter

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_CALLED = re.compile(
    r"(?:body|calls|to_apply|branch_computations|called_computations)="
    r"(%[\w.\-]+|\{[^}]*\})"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def collective_bytes(program: str, devices: int) -> dict[str, float]:
    """Bytes that one device sends in a run of `program`, by kind of collective.

    `program` is optimized HLO as `compiled.as_text()` gives it. Rings are assumed:
    with B bytes in the whole array an all-reduce sends 2 B (n − 1) / n, an all-gather,
    a reduce-scatter and an all-to-all B (n − 1) / n each, a permutation B. Loops of
    unknown length count once.
    """
    computations, entry = _computations(program.splitlines())
    totals: Counter[str] = Counter()
    _add(computations, entry, 1, totals)
    share = (devices - 1) / devices
    factors = dict.fromkeys(COLLECTIVES, share) | {
        "all-reduce": 2 * share,
        # The text has the shape of the scattered part.
        "reduce-scatter": devices * share,
        "collective-permute": 1.0,
    }
    return {name: size * factors[name] for name, size in totals.items()}


def _computations(lines: list[str]) -> tuple[dict[str, list[str]], str]:
    """Lines of every computation, and the name of the entry computation."""
    computations: dict[str, list[str]] = {}
    entry = name = ""
    for line in lines:
        if header := _HEADER.match(line):
            name = header[2]
            computations[name] = []
            entry = name if header[1] else entry
        elif name:
            computations[name].append(line)
    return computations, entry


def _add(computations, name: str, times: int, totals: Counter[str]) -> None:
    """Adds the bytes of a computation that runs `times` times to `totals`."""
    for line in computations.get(name, ()):
        if found := _COLLECTIVE.search(line):
            totals[found[2]] += times * _size(found[1])
        trips = _TRIPS.search(line) if " while(" in line else None
        repeats = times * (int(trips[1]) if trips else 1)
        for called in _CALLED.findall(line):
            for inner in re.findall(r"%([\w.\-]+)", called):
                _add(computations, inner, repeats, totals)


def _size(shapes: str) -> int:
    """Bytes of all arrays in a text such as (f32[2,3]{1,0}, bf16[4])."""
    total = 0
    for kind, dimensions in _ARRAY.findall(shapes):
        bits = re.search(r"\d+", kind)
        itemsize = max(1, int(bits[0]) // 8) if bits else 1
        total += itemsize * math.prod(map(int, filter(None, dimensions.split(","))))
    return total
