"""Files of weights: read bit for bit, and harmless whatever they hold."""

import codecs
import collections
import copyreg
import io
import json
import os
import pathlib
import pickle
import struct
import tracemalloc
import zipfile
from typing import NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights import pickled as unpickler
from nfnet_jax.weights.read import read_weights

RANDOM = np.random.RandomState(3)
TREE = {
    "NFNet/~/stem_conv0": {
        "w": RANDOM.randn(3, 3, 3, 4).astype(np.float32),
        "gain": np.array([1.5, -0.0, np.nan, np.inf], np.float32),
    },
    "NFNet/~/nf_block": {"skip_gain": np.zeros((), np.float32)},
    "NFNet/~/linear": {
        "w": np.asfortranarray(RANDOM.randn(4, 5).astype(np.float32)),
        "b": RANDOM.randn(0, 5).astype(np.float32),
    },
}
FLAT = {
    "stem.weight": RANDOM.randn(4, 3, 3, 3).astype(np.float32),
    "stem.gain": np.ones((4, 1, 1, 1), np.float32),
    "steps": np.array(7, np.int64),
}


def npz(arrays=FLAT, save=np.savez):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


FILES = {
    **{f"pickle{p}": pickle.dumps(TREE, p) for p in (2, 3, 4, 5)},
    "npz": npz(),
    "compressed npz": npz(save=np.savez_compressed),
    "safetensors": safetensors.numpy.save(FLAT),
}


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="weights.npz"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return to_file


def refused(path):
    """The message about a file, without its path."""
    with pytest.raises(UserError) as error:
        read_weights(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and len(line) < 500
    return line.removeprefix(f"{path}: ")


def assert_same(found, expected):
    """Equal in every bit; keys in any order."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if isinstance(array, dict):
            assert_same(found[name], array)
        else:
            assert type(found[name]) is np.ndarray
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes()


# --- What is read -------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_arrays_are_read_bit_for_bit(write, name):
    expected = TREE if name.startswith("pickle") else FLAT
    # Whatever the file is called.
    assert_same(read_weights(str(write(FILES[name], "weights.bin"))), expected)


def test_npz_of_modules(write):
    flat = {f"{m}:{k}": v for m, arrays in TREE.items() for k, v in arrays.items()}
    assert_same(read_weights(write(npz(flat))), TREE)
    mixed = npz(flat | {"NFNet/w": np.zeros(1)})
    assert "'NFNet/w' has no module" in refused(write(mixed))
    nested = read_weights(write(npz({"a:b:c": np.ones(1)})))
    assert nested == {"a:b": {"c": np.ones(1)}}


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", ">f8", "f2"])
@pytest.mark.parametrize("write_arrays", [npz, lambda tree: pickle.dumps({"": tree})])
def test_floats_become_float32(write, dtype, write_arrays):
    values = np.array([[1 / 3, 60000.0], [-2.0, np.inf]], dtype)
    found = read_weights(write(write_arrays({"w": values})))
    found = found.get("", found)["w"]
    assert found.dtype == np.float32 and found.dtype.isnative
    np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_floats_of_safetensors_become_float32(write, dtype):
    values = RANDOM.randn(2, 3).astype(getattr(ml_dtypes, dtype, dtype))
    found = read_weights(write(safetensors_file(values)))["w"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


def safetensors_file(values, dtype=None):
    name = {"float16": "F16", "float64": "F64", "bfloat16": "BF16"}
    data = values.tobytes()
    header = {
        "dtype": dtype or name[values.dtype.name],
        "shape": values.shape,
        "data_offsets": [0, len(data)],
    }
    text = json.dumps({"w": header}).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_integers_keep_their_type(write):
    arrays = {
        "steps": np.array(5, np.int64),
        "mask": np.array([True, False]),
        "big": np.array([1, 2], ">u2"),
    }
    expected = arrays | {"big": np.array([1, 2], np.uint16)}
    assert_same(read_weights(write(npz(arrays))), expected)
    assert_same(read_weights(write(pickle.dumps({"m": arrays})))["m"], expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_other_things_that_hold_arrays(write, protocol):
    arrays = {
        "scalar": np.float32(2.5),
        "transposed": np.arange(24.0, dtype=np.float32).reshape(2, 3, 4).swapaxes(0, 1),
        "jax": jnp.arange(3.0),
    }
    tree = collections.OrderedDict(m=arrays)
    found = read_weights(write(pickle.dumps(tree, protocol)))["m"]
    assert_same(found, {name: np.asarray(array) for name, array in arrays.items()})


class Named(NamedTuple):
    """Pickled as the import of a name, whether it exists or not."""

    module: str
    name: str

    def __call__(self):
        raise AssertionError("a pickle was run")


class Call:
    """Pickled as the call of `function`, whatever it is."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments, state)

    def __reduce__(self):
        return self.call if self.call[2] is not None else self.call[:2]

    __call__ = Named.__call__


class Pickler(pickle._Pickler):
    def save(self, obj, *rest, **options):
        if isinstance(obj, Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, *rest, **options)


def dumps(value, protocol=4):
    file = io.BytesIO()
    Pickler(file, protocol).dump(value)
    return file.getvalue()


def found_by_dill(module, name):
    imported = Call(Named("dill._dill", "_import_module"), module)
    return Call(Named("dill._dill", "_get_attr"), imported, name)


def dill_0_3_3(array):
    _, arguments, state = array.__reduce__()
    function = found_by_dill("numpy.core._multiarray_umath", "_reconstruct")
    return Call(function, *arguments, state=state)


def dill_0_3_8(array):
    return Call(Named("dill._dill", "_create_array"), *array.__reduce__(), None)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dilled", [dill_0_3_3, dill_0_3_8])
def test_haiku_parameters_written_by_dill(write, protocol, dilled):
    def mapping(items):
        return Call(Named("haiku._src.data_structures", "FlatMapping"), items)

    tree = {
        module: mapping({name: dilled(array) for name, array in arrays.items()})
        for module, arrays in TREE.items()
    }
    assert_same(read_weights(write(dumps(mapping(tree), protocol))), TREE)


# --- What is refused ----------------------------------------------------------------

MARKER = pathlib.Path("nfnet_jax_marker")
COMMAND = f"touch {MARKER}"
SHAPED = (np.ndarray, (0,), b"b")
RECONSTRUCT = np.zeros(1).__reduce__()[0]
STATE = (1, (1,), np.dtype("f4"), False, bytes(4))


def in_tree(value):
    return dumps({"m": {"w": value}})


def instructions(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


def word(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


def imported(module, name):
    return word(module) + word(name) + b"\x93"


ATTRIBUTES = b"}" + word("__class__") + b"K\x01s"


def encoded(text, encoding):
    data = Call(codecs.encode, text, encoding)
    return in_tree(Call(RECONSTRUCT, *SHAPED, state=(*STATE[:4], data)))


ATTACKS = {
    "os.system": (in_tree(Call(os.system, COMMAND)), "'posix.system'"),
    "eval": (in_tree(Call(eval, "1")), "'builtins.eval'"),
    "numpy.load": (in_tree(Call(np.load, "x.npy", None, True)), "'numpy.load'"),
    "a runner of programs in NumPy": (
        in_tree(Call(Named("numpy.testing", "runstring"), "1", {})), "runstring'",
    ),
    "protocol 2": (
        pickle.dumps({"m": {"w": Call(os.system, COMMAND)}}, 2), "'posix.system'",
    ),
    "in the arguments of an array": (
        in_tree(Call(RECONSTRUCT, np.ndarray, Call(os.system, COMMAND), b"b")),
        "'posix.system'",
    ),
    "in the state of an array": (
        in_tree(Call(RECONSTRUCT, *SHAPED, state=(1, Call(os.system, COMMAND)))),
        "'posix.system'",
    ),
    "as the type of an array": (
        in_tree(Call(RECONSTRUCT, Call(eval, "1"), (0,), b"b")), "'builtins.eval'",
    ),
    "through dill": (
        in_tree(Call(found_by_dill("os", "system"), COMMAND)), "'os.system'",
    ),
    "the interpreter of dill": (
        in_tree(Named("dill._dill", "_eval_repr")), "'dill._dill._eval_repr'",
    ),
    "a name of two lines": (
        instructions(imported("os\nm", "system")), r"'os\nm.system'",
    ),
    "another codec": (encoded("x", "rot13"), "damaged"),
    "a codec of bytes": (encoded(b"x", "latin1"), "damaged"),
    "objects": (in_tree(np.array([{}], object)), "an array of type 'O8'"),
    "a persistent id": (b"\x80\x02Pmoby\n.", "instruction PERSID"),
    "an instance": (b"\x80\x02(S'x'\nios\nsystem\n.", "instruction"),
    "a new object": (instructions(imported("numpy", "ndarray"), b")\x81"), "NEWOBJ"),
    "a buffer elsewhere": (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
    **{
        f"attributes of {name}": (instructions(what, state, b"b"), "damaged")
        for name, what, state in (
            ("a function", imported("_codecs", "encode"), ATTRIBUTES),
            ("a class", imported("numpy", "dtype"), b"N" + ATTRIBUTES + b"\x86"),
            ("a dictionary", b"}", ATTRIBUTES),
            ("an object", b"}", b"N" + ATTRIBUTES + b"\x86"),
        )
    },
    "no array": (in_tree([1.0]), "instruction EMPTY_LIST"),
    "a number": (in_tree(3), "'w' is not an array"),
    "an array without a state": (
        in_tree(Call(RECONSTRUCT, *SHAPED)), "'w' is not an array",
    ),
    "a plain dictionary": (
        pickle.dumps({"w": np.zeros(2)}), "'w' is not a dictionary",
    ),
    "numbers as keys": (
        pickle.dumps({3: {"w": np.zeros(1)}}), "a pickle of something else",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_pickles_that_are_more_than_arrays(write, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, what = ATTACKS[name]
    path = write(content)
    assert what in refused(path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_attacks_are_real_and_refused_in_one_line(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, _ = ATTACKS["os.system"]
    assert refused(write(content)) == (
        "refused, a pickle that wants to run 'posix.system'; expected arrays only"
    )
    assert not MARKER.exists()
    pickle.loads(content)
    assert MARKER.exists()


def test_registered_extensions_are_refused_even_once_used(write):
    copyreg.add_extension("posix", "system", 200)
    try:
        assert pickle.loads(b"\x80\x02\x82\xc8.") is os.system
        content = b"\x80\x02\x82\xc8" + b"U\x01x\x85R."
        assert "instruction EXT1" in refused(write(content))
    finally:
        copyreg.remove_extension("posix", "system", 200)
        copyreg.clear_extension_cache()


WRONG = {
    1: [(10**12, 10), (10**400,), (-1,), (2**32, 2**32), (0, 2**63), (1,) * 33, 1]
    + [(1.0,), None],
    2: [None, "f4"],
    4: [b"", [0], "text", None],
}
"""Values of places in `STATE`: shape, type and data."""


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place in WRONG for value in WRONG[place]]
)
def test_states_that_fit_no_array(write, place, value):
    state = (*STATE[:place], value, *STATE[place + 1 :])
    content = in_tree(Call(RECONSTRUCT, *SHAPED, state=state))
    assert refused(write(content)).startswith(("damaged", "refused"))


def nested_tuples():
    """Little to write, endless to print, compare or hash."""
    return b")" + b"q\x00h\x00\x86" * 200


def often(array, times=10**4):
    """A pickle that names as many arrays, each made again by `array`."""
    named = b"".join(word(str(i)) + array for i in range(times))
    return b"}" + word("m") + b"}(" + named + b"us"


MILLION = struct.pack("<I", 10**6) + b"x" * 10**6
DTYPE = imported("numpy", "dtype")
FROM_BUFFER = imported("numpy._core.numeric", "_frombuffer")
BYTES = FROM_BUFFER + b"(C\x04\0\0\0\0" + DTYPE + word("f4") + b"\x89\x88\x87R"
BOMBS = {
    "deep": (b")" + b"\x85" * 100_000, "something else"),
    "deep key": (b"})" + b"\x85" * 100_000 + b"Ns", "something else"),
    "tuples as a type": (DTYPE + nested_tuples() + b"\x89\x88\x87R", "damaged"),
    "tuples as a shape": (often(BYTES + nested_tuples() + b"C\x01CtR", 1), "damaged"),
    "tuples as axes": (
        often(BYTES + b"K\x01\x85" + word("K") + nested_tuples() + b"tR", 1), "damaged",
    ),
    "tuples as a key": (b"}" + nested_tuples() + b"K\x01s", "something else"),
    "calls in calls": (
        imported("dill._dill", "_create_array") + b"q\x01)"
        + b"q\x00h\x01h\x00)\x87" * 20_000 + b"q\x00h\x01h\x00R",
        "something else",
    ),
    **{
        f"{what} of 10 TB": (code + struct.pack("<Q", 10**13) + b"x", "damaged")
        for what, code in {
            "bytes": b"\x8e", "bytearray": b"\x96", "text": b"\x8d", "frame": b"\x95",
        }.items()
    },
    "far memo": (b"}r\xff\xff\xff\xff", "no arrays"),
    "long names in names": (
        b"}(" + b"X" + MILLION + b"}(" + word("a") + b"}" + word("b") + b"}uu",
        "something else",
    ),
    "one text often": (
        b"X" + MILLION + b"q\x00" + DTYPE + word("u1") + b"\x89\x88\x87Rq\x01"
        + imported("_codecs", "encode") + b"q\x02" + FROM_BUFFER + b"q\x03"
        + often(
            b"h\x03(h\x02h\x00" + word("latin1") + b"\x86Rh\x01J"
            + struct.pack("<i", 10**6) + b"\x85" + word("C") + b"tR"
        ),
        "far more than its size",
    ),
    "one array often": (
        b"B" + MILLION + b"q\x00" + DTYPE + word("f2") + b"\x89\x88\x87Rq\x01"
        + FROM_BUFFER + b"q\x02"
        + often(b"h\x02(h\x00h\x01J" + struct.pack("<i", 500_000) + b"\x85C\x01CtR"),
        "far more than its size",
    ),
    "one dictionary often": (
        b"}(" + word("m") + b"}q\x00("
        + b"".join(word(str(i)) + b"K\x01" for i in range(2000)) + b"u"
        + b"".join(word(str(i)) + b"h\x00" for i in range(2000)) + b"u",
        "more arrays than",
    ),
    "a dictionary of itself": (b"}q\x00" + word("x") + b"h\x00s", "not an array"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(write, name):
    content, what = BOMBS[name]
    path = write(instructions(content))
    tracemalloc.start()
    assert what in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()


def test_instructions_are_counted(write, monkeypatch):
    monkeypatch.setattr(unpickler, "_MOST_INSTRUCTIONS", 1000)
    assert "too many instructions" in refused(write(instructions(b"}" * 1001)))


def npy(dtype="<f4", shape="(1,)", data=bytes(4), version=(1, 0)):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}\n"
    length = struct.pack("<H", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text.encode() + data


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (zipped({"w.npy": npy(shape="(10**13,)")}), "damaged or truncated .npz"),
        (zipped({"w.npy": npy(shape="(10000000000000,)")}), "4 bytes for an array"),
        (zipped({"w.npy": npy(shape="(-1,)")}), "impossible shape"),
        (zipped({"w.npy": npy(shape=f"({'1,' * 33})")}), "33 axes"),
        (zipped({"w.npy": npy(dtype="O")}), "an array of type |O"),
        (zipped({"w.npy": npy(version=(3, 0))}), "damaged or truncated .npz"),
        (zipped({"w.npy": npy()}, zipfile.ZIP_LZMA), "packed in an unsupported way"),
        (zipped({"w.npy": ATTACKS["os.system"][0]}), "damaged or truncated .npz"),
        (zipped({"w.txt": b""}), "a zip archive with 'w.txt', expected arrays"),
        (zipped({"model/data.pkl": b"", "model/data/0": b""}), "a PyTorch checkpoint"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2), "convert it to safetensors"),
        (
            safetensors_file(np.zeros(4, np.uint8), "F8_E4M3"),
            "type F8_E4M3, expected numbers",
        ),
        (safetensors_file(np.zeros(4, np.uint8), "F64"), "damaged or truncated .safe"),
        (zipped({}), "no arrays in it"),
        (pickle.dumps({}), "no arrays in it"),
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html>\n<html></html>", "a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "Git LFS pointer",
        ),
        (b"\x89HDF\r\n\x1a\n", r"unknown format (it begins with b'\x89HDF\r\n\x1a\n'"),
    ],
)
def test_files_that_are_no_weights(write, content, what):
    assert what in refused(write(content))


def test_archive_that_would_unpack_to_too_much(write, monkeypatch):
    monkeypatch.setattr("nfnet_jax.weights.read._MOST_BYTES", 1000)
    zeros = npz({"w": np.zeros(1000, np.float32)}, np.savez_compressed)
    assert "would unpack to more than" in refused(write(zeros))


def test_names_of_no_file(tmp_path, write):
    write(b"", "F0_haiku.npz")
    line = refused(tmp_path / "F0_hiaku.npz")
    assert line == "no such file; did you mean 'F0_haiku.npz'?"
    assert refused(tmp_path / "none" / "F0.npz") == "no such file"
    assert refused(tmp_path / "F0_haiku.npz" / "F0.npz") == "no such file"
    assert refused(tmp_path).startswith("a directory, expected .safetensors")
    assert refused(tmp_path / ("x" * 300)) == "File name too long"
    os.mkfifo(tmp_path / "fifo")
    assert refused(tmp_path / "fifo").startswith("not a regular file")


@pytest.mark.parametrize("name", FILES)
def test_truncated_files(write, name):
    content = FILES[name]
    for length in {*range(24), *range(0, len(content), len(content) // 40)}:
        assert refused(write(content[:length]))
    assert "damaged or truncated" in refused(write(content[: len(content) // 2]))


@pytest.mark.parametrize("name", FILES)
def test_files_with_one_byte_changed(write, name):
    random = np.random.RandomState(8)
    for _ in range(150):
        content = bytearray(FILES[name])
        content[random.randint(len(content))] = random.randint(256)
        path = write(content)
        try:
            read_weights(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
