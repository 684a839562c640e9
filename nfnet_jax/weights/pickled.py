"""Arrays out of a pickle, without running it.

A pickle is a program: its instructions import and call whatever they name. `load`
follows only the instructions that dictionaries of arrays are made of, and imports and
calls nothing: names stay names, and the few calls that rebuild an array are done here
on plain bytes. Anything else is refused. It reads what `pickle` and `dill` write since
protocol 2 of dictionaries, Haiku's immutable ones included, and of NumPy's and JAX's
arrays.
"""

import dataclasses
import os
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights.arrays import array_from_bytes

_MOST_INSTRUCTIONS = 1_000_000
"""The largest published network needs about 40,000; bounds time and memory."""
_MOST_COPIES = 4
"""Times the size of the file: what its arrays may take, twice in any honest case."""
_EXPECTED = "expected {module: {name: array}}"
_TYPES = {
    kind + size: np.dtype(kind + size)
    for kind, sizes in {"b": "1", "f": "248", "i": "1248", "u": "1248"}.items()
    for size in sizes
}
"""What arrays may hold, by the names that NumPy writes."""


def load(file: BinaryIO) -> dict[str, dict[str, np.ndarray]]:
    """{module: {name: array}} from a pickle; floats become float32.

    Of {"params": {module: {name: array}}} the modules are called "params/MODULE".

    Raises:
      UserError: the pickle asks for more than arrays, or holds something else.
      Exception: of many types, where the pickle is damaged.
    """
    tree = _follow(file)
    if type(tree) is not dict:
        raise UserError(f"a pickle of something else, {_EXPECTED}")
    _check_level(tree)
    if any(type(arrays) is dict for own in tree.values() for arrays in own.values()):
        tree = {
            f"{outer}/{module}": arrays
            for outer, own in tree.items()
            for module, arrays in own.items()
        }
        _check_level(tree)
    return {
        module: {name: _finished(name, array) for name, array in arrays.items()}
        for module, arrays in tree.items()
    }


def _check_level(tree: dict) -> None:
    for module, arrays in tree.items():
        if type(arrays) is not dict:
            raise UserError(f"{module[:80]!r} is not a dictionary, {_EXPECTED}")
    # Modules may share one dictionary: few instructions can name very many arrays.
    if sum(map(len, tree.values())) > _MOST_INSTRUCTIONS:
        raise UserError("refused, a pickle of more arrays than any network has")


def _finished(name: str, value: object) -> np.ndarray:
    if type(value) is not _Array or value.array is None:
        raise UserError(f"{name[:80]!r} is not an array, {_EXPECTED}")
    return value.array


# --- Instructions -------------------------------------------------------------------


def _follow(file: BinaryIO) -> object:
    stack: list = []
    marks: list[int] = []
    memo: dict[Any, object] = {}
    argument: Any
    made, size = 0, file.seek(0, os.SEEK_END)
    file.seek(0)
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MOST_INSTRUCTIONS:
            raise UserError("refused, a pickle of too many instructions for weights")
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4"
                | "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8"
                | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8" | "BYTEARRAY8"
            ):  # fmt: skip
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(instruction.name[-1])
                _need(len(stack) >= length)
                stack[-length:] = [tuple(stack[-length:])]
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                start = marks.pop()
                stack[start:] = [tuple(stack[start:])]
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                start = marks.pop()
                _need(start > 0)
                _set_items(stack[start - 1], stack[start:])
                del stack[start:]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_named(module, name))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
                made += _size(stack[-1])
            case "BUILD":
                state, thing = stack.pop(), stack[-1]
                _need(type(thing) in (_Array, _Type))
                thing.build(*state)
                made += _size(thing)
            case "STOP":
                return stack.pop()
            case name:
                what = name if argument is None else f"{name} {str(argument)[:60]!r}"
                raise UserError(
                    f"refused, a pickle with the instruction {what};"
                    " expected arrays only"
                )
        # Few bytes that are used often must not fill the memory.
        if made > _MOST_COPIES * size:
            raise UserError("refused, a pickle that unpacks to far more than its size")
    raise EOFError("it ends early")


def _size(made: object) -> int:
    """Bytes that a call or a state may have allocated."""
    if type(made) is _Array and made.array is not None:
        return made.array.nbytes
    return len(made) if type(made) is bytes else 0


def _need(condition: bool) -> None:
    if not condition:
        raise ValueError("no valid pickle of arrays")


def _set_items(mapping: Any, items: list) -> None:
    _need(type(mapping) is dict and len(items) % 2 == 0)
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str:
            raise UserError(f"a pickle of something else, {_EXPECTED}")
        mapping[key] = value


# --- Names and calls ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Name:
    """Something that the pickle imports; it is never looked up."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Module:
    name: str


class _Type:
    """A `numpy.dtype` under construction."""

    def __init__(self, name, align=False, copy=True):
        _need(type(name) is str)
        if name not in _TYPES:
            raise UserError(f"refused, an array of type {name[:9]!r}; expected numbers")
        self.dtype = _TYPES[name]

    def build(self, version, byte_order, *rest):
        _need(byte_order in ("<", ">", "|", "="))
        self.dtype = self.dtype.newbyteorder(byte_order)


class _Array:
    """A `numpy.ndarray` under construction; `array` is None until its state comes."""

    def __init__(self, array: np.ndarray | None = None):
        self.array: Any = array

    def build(self, version, shape, type_, fortran, data):
        _need(type(type_) is _Type and type(data) in (bytes, bytearray))
        self.array = array_from_bytes(data, type_.dtype, shape, fortran=bool(fortran))


def _named(module: Any, name: Any) -> _Name:
    _need(type(module) is str and type(name) is str)
    # NumPy renamed its modules; the last one is what dill saw of a compiled function.
    module = module.replace("numpy._core", "numpy.core")
    full = f"{module}.{name}".replace("._multiarray_umath.", ".multiarray.")
    if full not in _CALLS and full != "numpy.ndarray":
        raise UserError(
            f"refused, a pickle that wants to run {full[:80]!r}; expected arrays only"
        )
    return _Name(full)


def _call(function: Any, arguments: Any) -> Any:
    _need(type(function) is _Name and type(arguments) is tuple)
    _need(function.name in _CALLS)
    return _CALLS[function.name](*arguments)


def _reconstruct(subtype, shape, typecode):
    _need(subtype == _Name("numpy.ndarray"))
    return _Array()


def _scalar(type_, data):
    array = _Array()
    array.build(1, (), type_, False, data)
    return array


def _from_buffer(data, type_, shape, order, axes=None):
    array = _Array()
    array.build(1, shape, type_, order == "F", data)
    if order == "K" and axes is not None:
        array.array = array.array.transpose(axes)
    return array


def _create_array(function, arguments, state, attributes=None):
    """What dill, and JAX for its arrays, put around NumPy's own reconstruction."""
    array = _call(function, arguments)
    _need(type(array) is _Array)
    array.build(*state)
    return array


def _encode(text, encoding):
    """How protocol 2 writes bytes."""
    _need(type(text) is str and encoding == "latin1")
    return text.encode("latin1")


def _no_bytes():
    """How protocol 2 writes no bytes."""
    return b""


def _dictionary(items=None):
    if items is None:
        return {}
    _need(type(items) is dict)
    return items


def _import_module(name):
    return _Module(name)


def _get_attribute(module, name):
    _need(type(module) is _Module)
    return _named(module.name, name)


_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _Type,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "collections.OrderedDict": _dictionary,
    "haiku._src.data_structures.FlatMapping": _dictionary,
    "jax._src.array._reconstruct_array": _create_array,
    "dill._dill._create_array": _create_array,
    "dill._dill._import_module": _import_module,
    "dill._dill._get_attr": _get_attribute,
}
"""Calls that a pickle may ask for, each done by a harmless function of this file."""
