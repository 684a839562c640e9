"""Checks of compiled programs, each a reading of the text of HLO or StableHLO."""

import re
from collections import Counter

from nfnet_jax.planning.hlo import Program, arrays
from nfnet_jax.planning.traffic import COLLECTIVES

_SPATIAL = re.compile(r"dim_labels=\w*0\w*_")
_STABLE_CONV = re.compile(
    r"stablehlo\.convolution.*: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>"
)


def convolution_dtypes(text: str) -> Counter:
    """Dtypes (images, kernel, result) of the convolutions of optimized HLO, counted.

    Matrix products that a TPU computes as convolutions without pixels are left out.
    """
    program = Program(text)
    shapes = {item.name: item.shape for item in program.instructions}
    found: Counter = Counter()
    for item in program.instructions:
        if item.opcode == "convolution" or "__cudnn$conv" in item.line:
            if _SPATIAL.search(item.line):
                operands = [_dtype(shapes[name]) for name in item.operands[:2]]
                found[*operands, _dtype(item.shape)] += 1
    return found


def _dtype(shape: str) -> str:
    return arrays(shape)[0][0]


def stable_convolution_dtypes(text: str) -> Counter:
    """Dtypes (images, kernel, result) of the convolutions of StableHLO, counted."""
    return Counter(
        tuple(shape.rsplit("x", 1)[1] for shape in found)
        for found in _STABLE_CONV.findall(text)
    )


def collectives(text: str) -> Counter:
    """Collectives of a run, by kind."""
    found: Counter = Counter()
    for times, item in Program(text).run(fusions=True):
        kind = item.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            found[kind] += times
    return found


def collectives_of_batch(text: str, sizes: set[int]) -> list[str]:
    """Shapes of the collectives that carry an array with a side of `sizes`."""
    return [
        item.shape
        for item in Program(text).instructions
        if item.opcode.removesuffix("-start") in COLLECTIVES
        if any(sizes & set(sides) for _, sides in arrays(item.shape))
    ]


def moved_activations(text: str, size: int) -> Counter:
    """Copies and transposes of signals of `size` examples, in kernels of their own or
    fused, by what they are and their shape.

    Images, of three channels or fewer, are no signals yet.
    """
    return Counter(
        (item.opcode, re.sub(r"\{.*", "", item.shape))
        for item in Program(text).instructions
        if item.opcode in ("copy", "transpose")
        for _, sides in arrays(item.shape)[:1]
        if size in sides and len(sides) == 4 and min(sides) > 3
    )


def donated(text: str) -> set[int]:
    """Numbers of the arguments whose memory results take."""
    header = Program(text).header
    inside = re.search(r"input_output_alias=\{(.*?)\}, entry", header)
    return {int(n) for n in re.findall(r": \((\d+),", inside[1])} if inside else set()
