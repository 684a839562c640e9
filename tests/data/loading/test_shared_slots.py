"""Slots filled by one thread and read by another: none is overwritten or left.

Streams with workers, in `test_streaming`, fill them from other processes.
"""

import collections
import pickle
import queue
import shutil
import threading
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from nfnet_jax.data.loading.shared_slots import shared_slots
from nfnet_jax.utils.errors import UserError

SHAPE = (3, 5)


def fill_all(slots, turns, filled):
    for turn in range(turns):
        slots.to_fill(turn)[:] = turn
        filled.put(turn)


def test_the_writer_waits_until_a_slot_has_been_taken():
    filled = queue.Queue()
    with shared_slots(2, SHAPE) as slots:
        copy = pickle.loads(pickle.dumps(slots))
        writer = threading.Thread(target=fill_all, args=(copy, 9, filled))
        writer.start()
        assert [filled.get(timeout=60) for _ in range(2)] == [0, 1]
        with pytest.raises(queue.Empty):
            filled.get(timeout=0.1)
        out = np.empty((2, 5), np.uint8)
        for turn in range(9):
            slots.take(turn, out)
            assert (out == turn).all()
            if turn + 2 < 9:
                assert filled.get(timeout=60) == turn + 2
        writer.join(60)


def test_nobody_waits_after_the_end():
    with shared_slots(1, SHAPE) as slots:
        slots.free_all()
        fill_all(slots, 3, queue.Queue())


def test_the_memory_is_gone_after_the_context():
    with shared_slots(1, SHAPE) as slots:
        SharedMemory(slots.name).close()
    with pytest.raises(FileNotFoundError):
        SharedMemory(slots.name)


def test_too_little_shared_memory_is_told(monkeypatch):
    free = collections.namedtuple("Usage", "free")(2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with (
        pytest.raises(UserError, match="2 MiB of shared memory.*data.workers"),
        shared_slots(2, (2**20,)),
    ):
        pass
