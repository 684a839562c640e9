"""Where things are kept that can be made again: decoded images, compiled programs."""

import os
from pathlib import Path


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
