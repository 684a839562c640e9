"""Where things are kept that can be made again: decoded images, compiled programs."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from nfnet_jax.utils.paths import local_path

# Seconds of compilation; JAX takes 1, and a start compiles some that take half of it.
_WORTH_KEEPING = 0.1


def cache_directory() -> Path:
    """$NFNET_JAX_CACHE, else nfnet_jax in $XDG_CACHE_HOME or ~/.cache.

    Raises:
      UserError: it is not on this machine.
    """
    if chosen := os.environ.get("NFNET_JAX_CACHE"):
        return local_path(chosen, "NFNET_JAX_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return local_path(shared, "XDG_CACHE_HOME") / "nfnet_jax"


def enable_compilation_cache() -> None:
    """Lets compiled programs survive the process.

    They are kept where JAX_COMPILATION_CACHE_DIR says, or else in `cache_directory`,
    and if they took as long as JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS says, or else
    `_WORTH_KEEPING`.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))
    least = "jax_persistent_cache_min_compile_time_secs"
    if least.upper() not in os.environ:
        jax.config.update(least, _WORTH_KEEPING)


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
