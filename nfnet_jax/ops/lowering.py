"""Operations that are computed otherwise on a CPU than elsewhere."""

import contextlib
import contextvars
from collections.abc import Iterator

_native_only = contextvars.ContextVar("native_only", default=False)


@contextlib.contextmanager
def native_operations() -> Iterator[None]:
    """Within it `conv2d` and `max_pool` are JAX's own operations and nothing else.

    For tools that read programs and know neither platforms nor custom gradients, and
    for programs that are traced for their shapes or parameters alone, which is faster
    so. Programs that `jax.jit` has traced before stay as they are.
    """
    token = _native_only.set(True)
    try:
        yield
    finally:
        _native_only.reset(token)


def is_native_only() -> bool:
    """Whether `native_operations` surrounds the caller."""
    return _native_only.get()
