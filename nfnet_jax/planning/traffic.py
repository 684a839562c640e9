"""Traffic between devices: bytes that a compiled program sends, read from its text."""

from collections import defaultdict

from nfnet_jax.planning.hlo import Program

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_ARGUMENTS = {"all-gather": lambda n: 1 / n, "collective-permute": lambda n: 1.0}
"""Bytes of the arguments for each byte of the result, on n devices."""


def collective_bytes(program: str, devices: int) -> dict[str, float]:
    """Bytes that one device sends in a run of `program`, by kind of collective.

    `program` is optimized HLO as `compiled.as_text()` gives it. Rings are assumed:
    with B bytes in the whole array an all-reduce sends 2 B (n − 1) / n, an all-gather,
    a reduce-scatter and an all-to-all B (n − 1) / n each, a permutation B. Loops of
    unknown length count once.
    """
    totals: dict[str, float] = defaultdict(float)
    for times, instruction in Program(program).run(fusions=True):
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            # The result of an asynchronous one holds its arguments, too.
            started = instruction.opcode.endswith("-start")
            arguments = _ARGUMENTS.get(kind, lambda n: 0.0)(devices) if started else 0.0
            totals[kind] += times * instruction.bytes / (1 + arguments)
    share = (devices - 1) / devices
    factors = dict.fromkeys(COLLECTIVES, share) | {
        "all-reduce": 2 * share,
        # The text has the shape of the scattered part.
        "reduce-scatter": devices * share,
        "collective-permute": 1.0,
    }
    return {name: size * factors[name] for name, size in totals.items()}
