"""Settings of a process: kept programs, kept memory, an end with its parent."""

import ctypes
import os
import platform
import threading
import time

from nfnet_jax.utils.files import cache_directory

# Seconds of compilation; JAX takes 1, and a start compiles some that take half of it.
_WORTH_KEEPING = 0.1
# Parameters of mallopt(3), and the largest value that it takes.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_LARGEST = 2**31 - 1


def enable_compilation_cache() -> None:
    """Keeps compiled programs for later processes.

    The directory is JAX_COMPILATION_CACHE_DIR, by default in `cache_directory`. A
    program is kept if compiling it took JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS, by
    default `_WORTH_KEEPING`.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))
    least = "jax_persistent_cache_min_compile_time_secs"
    if least.upper() not in os.environ:
        jax.config.update(least, _WORTH_KEEPING)


def keep_host_memory() -> None:
    """Lets a CPU reuse what a step has freed, instead of asking the kernel again.

    Every call of a compiled program allocates its working memory as one block. glibc
    maps so large a block anew and unmaps it after use: 250,000 page faults and a third
    of the time in a step of an NFNet-F0. Told to map nothing and to return nothing, it
    keeps the block, provided that it is allocated by the main thread, hence no
    asynchronous dispatch. The process stays as large as it once was.

    To be called before JAX computes anything. Without glibc: does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    # Imported here: entry points import nothing heavy before they need it.
    import jax

    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _LARGEST)
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def end_with_parent(parent: int) -> None:
    """Ends this process within a second after `parent` is gone.

    `parent` is the parent's process number, taken before anything took time.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
