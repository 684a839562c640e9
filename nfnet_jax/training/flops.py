"""Floating-point operations of a program and of a whole run."""

import dataclasses
import math

from jax.extend import core


def matrix_flops(jaxpr: core.ClosedJaxpr, platform: str | None = None) -> int:
    """Operations of all convolutions and matrix products, on all devices together.

    A multiply-add counts two. The program is that before any compiler. Loops of known
    length count as often as they run, others once; of branches the largest counts, or
    that for `platform` where there is one. Positions that a dilation filled with zeros
    do not count, nor does what nothing in its function is made of; padding does.
    """
    return _count(jaxpr.jaxpr, platform)


def _count(jaxpr: core.Jaxpr, platform: str | None) -> int:
    total = 0
    for equation in _used(jaxpr):
        name = equation.primitive.name
        inner = [
            _count(found, platform) for found in inner_programs(equation, platform)
        ]
        if name == "dot_general":
            total += _dot(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "scan":
            total += equation.params["length"] * sum(inner)
        elif name == "cond":
            total += max(inner)
        elif name == "shard_map":
            total += equation.params["mesh"].size * sum(inner)
        else:
            total += sum(inner)
    return total


def _used(jaxpr: core.Jaxpr) -> list:
    """Equations that the results depend on, last ones first."""
    needed = {value for value in jaxpr.outvars if isinstance(value, core.Var)}
    found = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not needed.isdisjoint(equation.outvars):
            found.append(equation)
            needed |= {v for v in equation.invars if isinstance(v, core.Var)}
    return found


def inner_programs(equation, platform: str | None = None) -> list[core.Jaxpr]:
    """Programs among the parameters of an operation, such as the body of a loop.

    Of branches that are chosen by the platform, the one for `platform` alone.
    """
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    branches = equation.params.get("branches_platforms")
    if platform is None or branches is None:
        return found
    chosen = (
        program
        for program, names in zip(found, branches, strict=True)
        if names is None or platform in names
    )
    return [next(chosen)]


def _dot(equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    products = math.prod(left[axis] for axis in contracted)
    return 2 * products * math.prod(equation.outvars[0].aval.shape)


def _convolution(equation) -> int:
    """2 · outputs · window · input features / groups, without zeros of dilation."""
    params = equation.params
    kernel = equation.invars[1].aval.shape
    out_features, *inner = params["dimension_numbers"].rhs_spec
    taps = math.prod(kernel[axis] for axis in inner)
    outputs = math.prod(equation.outvars[0].aval.shape)
    return 2 * outputs * taps // math.prod(params["lhs_dilation"])


@dataclasses.dataclass(frozen=True)
class Work:
    """Convolutions and matrix products of a run, two operations per multiply-add.

    `image`: multiply-adds of one image forward. `small`, `full`: operations of an
    update, forward and backward, the first `small_steps` on images of
    `train.small_size`.
    """

    image: int
    small: int
    full: int
    small_steps: int

    def between(self, start: int, end: int) -> int:
        """Operations of the updates after the first `start`, until there are `end`."""
        small = min(end, self.small_steps) - min(start, self.small_steps)
        return small * self.small + (end - start - small) * self.full
