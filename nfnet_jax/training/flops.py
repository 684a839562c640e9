"""Floating-point operations of a program, before any compiler has changed it."""

import math

from jax.extend import core


def matrix_flops(jaxpr: core.ClosedJaxpr) -> int:
    """Of all convolutions and matrix products, two a multiply-add, on all devices.

    Loops of known length count as often as they run, others once; of branches the
    largest counts. Positions that a dilation filled with zeros do not count, padding
    does.
    """
    return _count(jaxpr.jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inner = [_count(found) for found in _inner(equation.params)]
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


def _inner(params: dict) -> list[core.Jaxpr]:
    """Programs among the parameters of an operation."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found


def _dot(equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    products = math.prod(left[axis] for axis in contracted)
    return 2 * products * math.prod(equation.outvars[0].aval.shape)


def _convolution(equation) -> int:
    """2 · outputs · window · input features / groups, without the zeros of dilation."""
    params = equation.params
    kernel = equation.invars[1].aval.shape
    out_features, *inner = params["dimension_numbers"].rhs_spec
    taps = math.prod(kernel[axis] for axis in inner)
    outputs = math.prod(equation.outvars[0].aval.shape)
    return 2 * outputs * taps // math.prod(params["lhs_dilation"])
