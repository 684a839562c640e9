"""Arrays from a pickle, by an unpickler that neither imports nor calls what it names.

A pickle is a program. `_Unpickler` follows only the instructions that dictionaries of
arrays need and finds only stand-ins for the few names of `_CALLS` ("Restricting
Globals" in Python's documentation of `pickle`); arrays are made after the last
instruction. It reads dictionaries, Haiku's immutable ones included, of NumPy's and
JAX's arrays, as `pickle` and `dill` write them since protocol 2.

An allow-list of names alone would leave the standard unpickler in C, which allocates a
memo of any size that eight bytes ask for, and whose stack overflows on nested tuples as
keys. Its twin in Python has a table of instructions, which can be cut down.
"""

import math
import operator
import os
import pickle
import pickletools
import types
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from nfnet_jax.utils.errors import UserError

_MOST_INSTRUCTIONS = 1_000_000
"""Bound of time and memory; the largest published network needs about 40,000."""
_MOST_COPIES = 4
"""Bound of all arrays in sizes of the file; float16 unpacks to 2."""
_MOST_ARRAYS = 50_000
_LONGEST_NAME = 300
_EXPECTED = "expected {module: {name: array}}"
_INSTRUCTIONS = frozenset(
    "PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD"
    " NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4"
    " SHORT_BINUNICODE BINUNICODE BINUNICODE8"
    " SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8"
    " EMPTY_DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE"
    " BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET".split()
)
_TYPES = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split())


def read_pickle(file: BinaryIO) -> dict[str, dict[str, np.ndarray]]:
    """{module: {name: array}} from a pickle; floats become float32.

    The modules of {"params": {module: {name: array}}} are called "params/MODULE".

    Raises:
      UserError: the pickle asks for more than arrays, or holds something else.
      Exception: of many types, where the pickle is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    source = types.SimpleNamespace(
        # A pickle may announce more bytes than the file, or the memory, has.
        read=lambda count: file.read(min(count, size)),
        readline=file.readline,
    )
    tree = _checked(_Unpickler(source).load())
    if any(type(arrays) is _Dict for own in tree.values() for arrays in own.values()):
        inner = {f"{k}/{m}": own[m] for k, own in tree.items() for m in own}
        tree = _checked(_Dict(inner))
    room = _MOST_COPIES * size
    weights: dict[str, dict[str, np.ndarray]] = {}
    for module, own in tree.items():
        weights[module] = {}
        for name, array in own.items():
            if type(array) is not _Array or array.state is None:
                raise UserError(f"{name[:80]!r} is not an array, {_EXPECTED}")
            weights[module][name] = array.finish()
            room -= weights[module][name].nbytes
            if room < 0:
                raise UserError(
                    "refused, a pickle that unpacks to far more than its size"
                )
    return weights


def _checked(tree: Any) -> "_Dict":
    if type(tree) is not _Dict:
        raise UserError(f"a pickle of something else, {_EXPECTED}")
    for module, arrays in tree.items():
        if type(arrays) is not _Dict:
            raise UserError(f"{module[:80]!r} is not a dictionary, {_EXPECTED}")
    # Modules may share one dictionary: few instructions can name very many arrays.
    if sum(map(len, tree.values())) > _MOST_ARRAYS:
        raise UserError("refused, a pickle of more arrays than any network has")
    return tree


def array_from_bytes(
    data: bytes | bytearray, dtype: np.dtype, shape: Sequence[int], *, fortran=False
) -> np.ndarray:
    """Array of `shape` that holds `data`: float32 for any floats, else as it is.

    Nothing is allocated that `data` does not fill. The array may share its memory.

    Raises:
      UserError: an array of anything but numbers and truth values.
      ValueError: `shape` and `dtype` are not those of `data`.
    """
    if dtype.kind not in "biuf":
        raise UserError(f"refused, an array of type {dtype.str}; expected numbers")
    if len(shape) > 32:
        raise ValueError(f"an array with {len(shape)} axes")
    shape = tuple(operator.index(length) for length in shape)
    if not all(0 <= length < 1 << 48 for length in shape):
        raise ValueError("an array of impossible shape")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array {dtype.str} of shape {shape}")
    kept = np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")
    with np.errstate(all="ignore"):
        flat = np.frombuffer(data, dtype).astype(kept, copy=False)
    return flat.reshape(shape, order="F" if fortran else "C")


# --- Stand-ins ----------------------------------------------------------------------
# They have no attributes that BUILD could set, take a fixed number of arguments, and
# neither hash nor print a value: on nested tuples that may take forever.


class _Dict(dict):
    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) is not str or len(key) > _LONGEST_NAME:
            raise UserError(f"a pickle of something else, {_EXPECTED}")
        super().__setitem__(key, value)


class _Type:
    """A `numpy.dtype`; its state begins with a version and the byte order."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, align: Any = False, copy: Any = True):
        _need(type(name) is str)
        if name not in _TYPES:
            raise UserError(f"refused, an array of type {name[:9]!r}; expected numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        _need(state[1] in ("<", ">", "|", "="))
        self.dtype = self.dtype.newbyteorder(state[1])


class _Latin1(NamedTuple):
    """Bytes in the form that protocol 2 has for them."""

    text: Any
    encoding: Any

    def encode(self) -> bytes:
        _need(type(self.text) is str and self.encoding == "latin1")
        return self.text.encode("latin1")


class _Array:
    """A `numpy.ndarray`; its state is unchecked until `finish`."""

    __slots__ = ("axes", "state")

    def __init__(self, state: Any = None, axes: Any = None):
        self.state, self.axes = state, axes

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def finish(self) -> np.ndarray:
        _, shape, kind, fortran, data = self.state
        data = data.encode() if type(data) is _Latin1 else data
        _need(type(kind) is _Type and type(data) is bytes)
        array = array_from_bytes(data, kind.dtype, shape, fortran=bool(fortran))
        return array if self.axes is None else array.transpose(self.axes)


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any, axes: Any = None):
    return _Array((1, shape, kind, order == "F", data), axes if order == "K" else None)


def _dictionary(items: Any = None):
    return _Dict() if items is None else items


def _wrapped(function: Any, arguments: Any, state: Any, attributes: Any = None):
    """Form of dill, and of JAX for its arrays, around NumPy's own call."""
    return _Array(state)


_CALLS: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": lambda kind, shape, typecode: _Array(),
    "numpy.core.multiarray.scalar": lambda kind, data: _Array((1, (), kind, 0, data)),
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": _Type,
    "numpy.ndarray": None,
    "_codecs.encode": _Latin1,
    "__builtin__.bytes": lambda: b"",
    "collections.OrderedDict": _dictionary,
    "haiku._src.data_structures.FlatMapping": _dictionary,
    "jax._src.array._reconstruct_array": _wrapped,
    "dill._dill._create_array": _wrapped,
    "dill._dill._import_module": lambda name: name,
    "dill._dill._get_attr": lambda module, name: _find(module, name),
}
"""Names that a pickle may import, and what is called in their place."""


class _Name(NamedTuple):
    function: Any

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def _find(module: Any, name: Any) -> _Name:
    _need(type(module) is str and type(name) is str)
    # NumPy renamed its modules; dill saw that of a compiled function.
    full = f"{module.replace('numpy._core', 'numpy.core')}.{name}"
    full = full.replace("._multiarray_umath.", ".multiarray.")
    if full not in _CALLS:
        raise UserError(
            f"refused, a pickle that wants to run {full[:80]!r}; expected arrays only"
        )
    return _Name(_CALLS[full])


def _need(condition: bool) -> None:
    if not condition:
        raise ValueError("no valid pickle of arrays")


# --- Instructions -------------------------------------------------------------------


class _Unpickler(pickle._Unpickler):
    followed = 0

    def find_class(self, module: Any, name: Any) -> _Name:
        return _find(module, name)


def _guarded(name: str, follow: Callable[[Any], None]) -> Callable[[Any], None]:
    """The instruction `name`, counted, or its refusal."""

    def guarded(unpickler: _Unpickler) -> None:
        if name not in _INSTRUCTIONS:
            raise UserError(
                f"refused, a pickle with the instruction {name}; expected arrays only"
            )
        unpickler.followed += 1
        if unpickler.followed > _MOST_INSTRUCTIONS:
            raise UserError("refused, a pickle of too many instructions for weights")
        follow(unpickler)

    return guarded


_STANDARD = pickle._Unpickler.dispatch
_OWN: dict[int, Callable[[Any], None]] = {
    pickle.EMPTY_DICT[0]: lambda unpickler: unpickler.append(_Dict()),
    # The standard one zeroes as many bytes as are announced before it reads any.
    pickle.BYTEARRAY8[0]: _STANDARD[pickle.BINBYTES8[0]],
}
_Unpickler.dispatch = {
    ord(code.code): _guarded(code.name, (_STANDARD | _OWN)[ord(code.code)])
    for code in pickletools.opcodes
}
