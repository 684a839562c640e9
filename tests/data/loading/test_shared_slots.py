"""Slots filled by one process and read by another: none is overwritten or left."""

import collections
import multiprocessing
import queue
import shutil
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest
from slot_writer import fill_all

from nfnet_jax.data.loading.shared_slots import shared_slots
from nfnet_jax.utils.errors import UserError

SHAPE = (3, 5)


def test_another_process_waits_until_a_slot_has_been_taken():
    context = multiprocessing.get_context("spawn")
    filled = context.Queue()
    with shared_slots(2, SHAPE) as slots:
        writer = context.Process(target=fill_all, args=(slots, 9, filled))
        writer.start()
        assert [filled.get(timeout=120) for _ in range(2)] == [0, 1]
        with pytest.raises(queue.Empty):
            filled.get(timeout=0.5)
        out = np.empty((2, 5), np.uint8)
        for turn in range(9):
            slots.take(turn, out)
            assert (out == turn).all()
            if turn + 2 < 9:
                assert filled.get(timeout=60) == turn + 2
        writer.join(60)
        assert writer.exitcode == 0


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
