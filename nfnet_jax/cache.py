"""Where things are kept that can be made again: decoded images, compiled programs."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def cache_directory() -> Path:
    """$NFNET_JAX_CACHE, else nfnet_jax in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("NFNET_JAX_CACHE"):
        return Path(chosen).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser() / "nfnet_jax"


def enable_compilation_cache() -> None:
    """Lets compiled programs survive the process.

    They are kept where JAX_COMPILATION_CACHE_DIR says, or else in `cache_directory`.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file that another process sees whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
