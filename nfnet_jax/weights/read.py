"""Files of weights, read without executing anything in them."""

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors

from nfnet_jax.utils.errors import UserError, nearest
from nfnet_jax.weights.pickled import array_from_bytes, read_pickle

Weights = dict[str, np.ndarray] | dict[str, dict[str, np.ndarray]]
"""{name: array} or {module: {name: array}}; floats are float32."""

_MOST_BYTES = 8 << 30
"""Largest size of an unpacked .npz; the largest published network has 1.8e9."""
_EXPECTED = "expected .safetensors, .npz, or one of the published Haiku pickles"
_TORCH = (
    "a PyTorch checkpoint, which is a program and not run here; convert it to"
    " safetensors (safetensors.torch.save_file)"
)
_LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_SAFETENSORS_TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
    "I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


def read_weights(path: str | os.PathLike) -> Weights:
    """The arrays in a file of any name, in the format that it begins like.

    - safetensors: {name: array};
    - .npz: {name: array}, or {MODULE: {NAME: array}} if every array has a name
      "MODULE:NAME" (split at the last colon);
    - a pickle of {module: {name: array}}, such as the published F0_haiku.npz.

    All floats become float32; float32 keeps every bit. Arrays may be read-only.

    Raises:
      UserError: no such file, or no weights that can be read safely; one line that
        begins with `path`.
    """
    path = Path(path)
    kind = "file of weights"
    try:
        with _open(path) as file:
            kind, read = _format(file)
            weights = read(file)
        if not weights:
            raise UserError("no arrays in it")
        return weights
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{path}: too large for the memory of this machine") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except Exception as error:
        # Parsers raise arbitrary exceptions on damaged files.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: damaged or truncated {kind} ({reason})") from error


def beside(path: Path) -> str:
    """A hint at a file of weights with the name of `path` and an ending, or ""."""
    found = sorted(
        other
        for ending in (".safetensors", ".npz")
        for other in path.parent.glob(f"{path.name}{ending}")
    )
    return f"; did you mean {str(found[0])!r}?" if found else ""


def _open(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        others = os.listdir(path.parent) if path.parent.is_dir() else []
        hint = beside(path) or nearest(path.name, others)
        raise UserError(f"no such file{hint}") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"a directory, {_EXPECTED}{beside(path / '*')}")
    if not stat.S_ISREG(mode):
        raise UserError(f"not a regular file, {_EXPECTED}")
    return path.open("rb")


def _format(file: BinaryIO) -> tuple[str, Callable[[BinaryIO], Weights]]:
    """Name and reader of a format, by the first bytes of `file`."""
    head = file.read(512)
    file.seek(0)
    # First, because a header's length may look like anything. No pickle has such zeros.
    if head[4:8] == bytes(4) and head[8:9] == b"{":
        return ".safetensors", _read_safetensors
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ".npz", _read_npz
    if head.startswith(_LEGACY_TORCH):
        raise UserError(_TORCH)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle", read_pickle
    if not head:
        raise UserError("an empty file; delete it and fetch it again")
    if head.lstrip().startswith(b"<"):
        raise UserError("a web page, not weights; delete it and fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise UserError("a Git LFS pointer, not weights; fetch them with git lfs pull")
    raise UserError(f"unknown format (it begins with {head[:8]!r}), {_EXPECTED}")


def _read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    arrays = {}
    for name, tensor in sorted(safetensors.deserialize(file.read())):
        dtype, shape, data = tensor["dtype"], tensor["shape"], tensor["data"]
        if dtype == "BF16":
            upper_half = array_from_bytes(data, np.dtype("<u2"), shape)
            arrays[name] = (upper_half.astype(np.uint32) << 16).view(np.float32)
        elif dtype in _SAFETENSORS_TYPES:
            dtype = np.dtype(_SAFETENSORS_TYPES[dtype])
            arrays[name] = array_from_bytes(data, dtype, shape)
        else:
            raise UserError(f"{name[:80]!r} is of type {dtype}, expected numbers")
    return arrays


def _read_npz(file: BinaryIO) -> Weights:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            if member.filename.endswith("/data.pkl"):
                raise UserError(_TORCH)
            if not member.filename.endswith(".npy"):
                raise UserError(
                    f"a zip archive with {member.filename[:80]!r}, expected arrays"
                    " (.npy) only"
                )
        if sum(member.file_size for member in members) > _MOST_BYTES:
            raise UserError("refused, it would unpack to more than 8 GiB")
        names = (member.filename.removesuffix(".npy") for member in members)
        arrays = (_read_member(archive, member) for member in members)
        return _nested(dict(zip(names, arrays, strict=True)))


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    # Other compressions may ask for any amount of memory, and NumPy writes none.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{member.filename[:80]!r} is packed in an unsupported way")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = header(file)
        return array_from_bytes(file.read(), dtype, shape, fortran=fortran)


def _nested(arrays: dict[str, np.ndarray]) -> Weights:
    plain = [name for name in arrays if ":" not in name]
    if len(plain) == len(arrays):
        return arrays
    if plain:
        raise UserError(
            f"{plain[0][:80]!r} has no module, though others do; expected all or none"
            " named MODULE:NAME"
        )
    tree: dict[str, dict[str, np.ndarray]] = {}
    for path, array in arrays.items():
        module, _, name = path.rpartition(":")
        tree.setdefault(module, {})[name] = array
    return tree
