"""Streams: the same images from any start, with any workers; their shared memory."""

import collections
import contextlib
import dataclasses
import multiprocessing
import pickle
import queue
import shutil
import threading
import time
from multiprocessing.shared_memory import SharedMemory

import jax
import numpy as np
import pytest
from data_sets import refusal, write_jpeg_set

from nfnet_jax.config import base_config
from nfnet_jax.data import loading
from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.loading import choose_loader, streaming
from nfnet_jax.data.loading.shared_slots import shared_slots
from nfnet_jax.data.loading.shuffle import host_feistel_shuffle
from nfnet_jax.data.loading.workers import HostBatches, center_crop
from nfnet_jax.training.parallel import device_mesh
from nfnet_jax.utils.errors import UserError


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    write_jpeg_set(data_dir)
    return load_dataset("tfds:jpegs", data_dir=data_dir, image_size=16, loader="stream")


def make_config(**changes):
    config = base_config()
    config.data.batch_size = 80
    config.data.augment.flip = True
    config.data.augment.random_resized_crop = True
    config.data.workers = 0
    config.update_from_flattened_dict(changes)
    return config


def training_batches(split, config, steps):
    return loading.training_batches(
        split, config.data, device_mesh(), seed=0, per_example=1, steps=steps
    )


def evaluation_batches(split, config):
    return loading.evaluation_batches(split, config.data, device_mesh())


def read(batches, start, stop):
    """Images and labels of the batches `start` … `stop` - 1."""
    materialize = jax.jit(batches.materialize)
    with contextlib.closing(batches.iterate(start)) as host_batches:
        taken = [materialize(next(host_batches), i) for i in range(start, stop)]
    images, labels, example_ids = zip(*jax.device_get(taken), strict=True)
    expected = np.arange(start * len(labels[0]), stop * len(labels[0]))
    np.testing.assert_array_equal(np.concatenate(example_ids), expected)
    images, labels = np.concatenate(images), np.concatenate(labels)
    return images[labels >= 0], labels[labels >= 0]


@pytest.fixture(scope="module")
def two_epochs(jpegs):
    """Images and labels of 5 batches of 80, without workers."""
    return read(training_batches(jpegs.train, make_config(), 5), 0, 5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_continues_from_any_batch_with_any_workers(jpegs, two_epochs, workers):
    images, labels = two_epochs
    config = make_config(**{"data.workers": workers})
    rest = training_batches(jpegs.train, config, 5)
    more_images, more_labels = read(rest, 2, 5)
    np.testing.assert_array_equal(labels[160:], more_labels)
    np.testing.assert_array_equal(images[160:], more_images)


def test_every_epoch_shows_every_image_once_and_differently(two_epochs):
    images, labels = two_epochs
    first, second = labels.reshape(2, 200)
    np.testing.assert_array_equal(np.sort(first), np.arange(200))
    np.testing.assert_array_equal(np.sort(second), np.arange(200))
    assert np.mean(first == second) < 0.05
    once, again = images[np.argsort(first)], images[200 + np.argsort(second)]
    assert (once != again).any(axis=(1, 2, 3)).all()


def test_repeats_draw_an_example_in_a_row_with_other_crops(jpegs):
    config = make_config(**{"data.augment.repeats": 4})
    images, labels = read(training_batches(jpegs.train, config, 2), 0, 2)
    labels, images = labels.reshape(40, 4), images.reshape(40, 4, -1)
    assert (labels == labels[:, :1]).all() and len(set(labels[:, 0])) == 40
    assert (images[:, 0] != images[:, 1]).any(axis=-1).all()


@pytest.mark.parametrize("crop_padding", [0, 2])
def test_both_loaders_give_the_same_batches(crop_padding):
    config = make_config(
        **{
            "data.augment.random_resized_crop": False,
            "data.augment.crop_padding": crop_padding,
            "data.eval_batch_size": 100,
        }
    )
    found = []
    for loader in ("memory", "stream"):
        digits = load_dataset("digits", train_split="train[:75%]", loader=loader)
        train = training_batches(digits.train, config, 20)
        test = evaluation_batches(digits.test, config)
        found.append((read(train, 11, 20), read(test, 0, 4)))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_an_evaluation_is_one_pass_in_order(jpegs):
    config = make_config(**{"data.eval_batch_size": 20})
    batches = evaluation_batches(jpegs.test, config)
    _, labels = read(batches, 0, 3)
    with contextlib.closing(batches.iterate(0)) as host_batches:
        assert len(list(host_batches)) == 3
    source = jpegs.test.source
    assert labels.tolist() == [label for _, label in source.read(range(50))]


@pytest.mark.parametrize("size", [12, 160])
def test_processes_share_the_rows_of_a_batch(jpegs, size):
    order = host_feistel_shuffle(jax.random.key(0), 200, 400)
    batches = HostBatches(jpegs.train, size, center_crop, order)
    whole = np.concatenate([batches.draw_ids(n) for n in range(2 * batches.pieces)])
    np.testing.assert_array_equal(whole, np.arange(2 * size))
    parts = [dataclasses.replace(batches, process=i, processes=4) for i in range(4)]
    rows = [
        np.concatenate([part.draw_ids(n) for n in range(part.pieces, 2 * part.pieces)])
        for part in parts
    ]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(size, 2 * size))


def test_an_error_in_a_worker_is_the_users(jpegs):
    class Damaged:
        channels = 3

        def __len__(self):
            return 200

        def read(self, indices):
            raise UserError("records are damaged")

    split = type(jpegs.train)("damaged", Damaged(), (16, 16, 3), True)
    batches = HostBatches(split, 8, center_crop)
    piece = batches.fill(0, np.empty((8, 16, 16, 3), np.uint8))
    assert piece.error == "records are damaged"
    line = refusal(streaming.assemble, batches, iter([(0, piece)]), None, None)
    assert line == "records are damaged"


def test_the_death_of_a_worker_ends_a_run_in_one_line(jpegs):
    config = make_config(**{"data.workers": 1, "data.batch_size": 2})
    before = set(multiprocessing.active_children())
    batches = training_batches(jpegs.train, config, 100_000)
    with contextlib.closing(batches.iterate(0)) as host_batches:
        next(host_batches)
        (worker,) = set(multiprocessing.active_children()) - before
        worker.kill()
        started = time.monotonic()
        line = refusal(lambda: list(host_batches))
        assert "worker of the data loader died with exit code -9" in line
    assert time.monotonic() - started < 20


def test_images_are_streamed_that_would_be_resized_before_they_are_cropped():
    assert choose_loader(make_config().data) == "auto"
    assert choose_loader(make_config(**{"data.image_size": 32}).data) == "stream"
    config = make_config(**{"data.image_size": 32, "data.loader": "memory"})
    assert choose_loader(config.data) == "memory"


# --- Shared memory

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
