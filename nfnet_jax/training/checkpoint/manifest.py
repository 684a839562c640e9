"""Manifests, which prove that a directory still holds the files written into it.

Orbax restores flipped bits without an error, so every checkpoint gets a manifest with
the checksums of its files. The manifest is written last: a directory without one was
not completed.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from nfnet_jax.utils.files import replacing
from nfnet_jax.utils.strict_json import dumps, strict

_MANIFEST = "manifest.json"


class Unsound(Exception):
    """Error of a directory that differs from its manifest; the message names how."""


def seal(directory: str, **facts: Any) -> None:
    """Writes the manifest: `facts`, and size and SHA-256 of every file.

    All files have reached the disk before the manifest is written.
    """
    files = {}
    for path in sorted(pathlib.Path(directory).rglob("*")):
        if path.is_file() and not path.name.startswith(_MANIFEST):
            _sync(str(path))
            name = os.path.relpath(path, directory)
            files[name] = _describe(directory, name)
    content = {"facts": strict(facts), "files": files}
    text = dumps(content | {"checksum": _checksum(content)}, indent=1)
    with replacing(os.path.join(directory, _MANIFEST)) as part:
        part.write_text(text, encoding="utf-8")
        _sync(str(part))
    _sync(directory)


def unseal(directory: str) -> None:
    """Removes the manifest, if there is one, before files are removed or replaced."""
    if is_sealed(directory):
        os.unlink(os.path.join(directory, _MANIFEST))


def is_sealed(directory: str) -> bool:
    """True if there is a manifest, damaged or not."""
    return os.path.exists(os.path.join(directory, _MANIFEST))


def read_facts(directory: str) -> dict[str, Any]:
    """The `facts` that were given to `seal`.

    Raises:
      Unsound: there is no manifest, or it is damaged.
    """
    return _read(directory)["facts"]


def verify(directory: str, **facts: Any) -> None:
    """Compares `facts` and every file with the manifest.

    Raises:
      Unsound: one of them differs.
    """
    content = _read(directory)
    for name, expected in facts.items():
        if content["facts"].get(name) != expected:
            raise Unsound(f"its {name} is {content['facts'].get(name)}")
    for name, expected in content["files"].items():
        try:
            found = _describe(directory, name)
        except OSError as error:
            raise Unsound(f"{name}: {error.strerror}") from error
        if found["bytes"] != expected["bytes"]:
            raise Unsound(
                f"{name} has {found['bytes']} bytes, expected {expected['bytes']}"
            )
        if found != expected:
            raise Unsound(f"{name} does not have the bytes that were written")


def _read(directory: str) -> dict[str, Any]:
    try:
        with open(os.path.join(directory, _MANIFEST), encoding="utf-8") as file:
            content = json.load(file)
        if content.pop("checksum") == _checksum(content):
            return content
    except FileNotFoundError as error:
        raise Unsound("was not completed") from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unsound(f"{_MANIFEST} is damaged") from error
    raise Unsound(f"{_MANIFEST} is damaged")


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _describe(directory: str, name: str) -> dict[str, Any]:
    with open(os.path.join(directory, name), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _sync(path: str) -> None:
    """Waits until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
