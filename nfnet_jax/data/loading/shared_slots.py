"""Shared memory that the workers of a stream fill and the training process reads.

It is mapped once and reused. Grain's own way of sending arrays allocates new memory for
each, which the kernel has to clear page by page.
"""

import contextlib
import dataclasses
import math
import shutil
import time
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from nfnet_jax.utils.errors import UserError

_SHARED = Path("/dev/shm")
_ALIGNMENT = 64
_POLL_SECONDS = 0.001
_FOREVER = np.iinfo(np.int64).max
# Memory attached in this process, by name.
_attached: dict[str, SharedMemory] = {}


@dataclasses.dataclass(frozen=True)
class Slots:
    """Arrays uint8 of `shape` in the shared memory `name`, `count` of them, reused.

    Turn t uses slot t modulo `count`; filling it waits until turn t - `count` has been
    taken. Can be pickled for another process.
    """

    name: str
    count: int
    shape: tuple[int, ...]

    def to_fill(self, turn: int) -> np.ndarray:
        """Waits for the slot of a turn to be free, and returns it."""
        while self._freed[turn % self.count] < turn // self.count:
            time.sleep(_POLL_SECONDS)
        return self._slot(turn)

    def take(self, turn: int, out: np.ndarray) -> None:
        """Copies the first rows of a filled slot to `out`, and frees it."""
        out[...] = self._slot(turn)[: len(out)]
        self._freed[turn % self.count] = turn // self.count + 1

    def free_all(self) -> None:
        """Frees all slots for good, so that no process waits again."""
        self._freed[:] = _FOREVER

    def _slot(self, turn: int) -> np.ndarray:
        size = math.prod(self.shape)
        first = _header_bytes(self.count) + turn % self.count * size
        pixels = np.frombuffer(_buffer(self.name), np.uint8, size, first)
        return pixels.reshape(self.shape)

    @property
    def _freed(self) -> np.ndarray:
        """Number of times that each slot has been taken, int64 [count]."""
        return np.frombuffer(_buffer(self.name), np.int64, self.count)


@contextlib.contextmanager
def shared_slots(count: int, shape: tuple[int, ...]) -> Iterator[Slots]:
    """Slots that exist until the context ends; UserError if there is no room."""
    needed = _header_bytes(count) + count * math.prod(shape)
    _check_space(needed)
    memory = SharedMemory(create=True, size=needed)
    _attached[memory.name] = memory
    try:
        yield Slots(memory.name, count, shape)
    finally:
        memory.unlink()
        # Fails, and stays mapped, while a thread or a traceback holds a slot.
        with contextlib.suppress(BufferError):
            memory.close()
            _attached.pop(memory.name, None)


def _buffer(name: str) -> memoryview:
    if name not in _attached:
        _attached[name] = SharedMemory(name)
    return _attached[name].buf  # type: ignore[return-value]


def _header_bytes(count: int) -> int:
    return -(-count * 8 // _ALIGNMENT) * _ALIGNMENT


def _check_space(needed: int) -> None:
    # Writing beyond the free memory would kill the process.
    if not _SHARED.is_dir():
        return
    free = shutil.disk_usage(_SHARED).free
    if needed > free:
        raise UserError(
            f"a stream needs {needed / 2**20:.0f} MiB of shared memory, {_SHARED} has "
            f"{free / 2**20:.0f} MiB left: set a lower data.workers, or give the "
            "container more (docker run --shm-size)"
        )
