"""Broken files among good ones: each is named, none stops a run."""

import contextlib
import re

import jax
import numpy as np
import pytest
from data_sets import encode, jpeg, noise, refusal

from nfnet_jax.config import base_config
from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.loading import evaluation_batches, training_batches
from nfnet_jax.training.parallel import device_mesh

PICTURE = jpeg(40, 50, seed=0)
BROKEN = {
    "cut.jpg": PICTURE[: len(PICTURE) // 2],
    "cut.png": encode(noise(40, 50, 3))[:3000],
    "empty.png": b"",
    "text.jpg": b"not an image at all",
    "movie.gif": b"GIF89a" + bytes(40),
    "floats.tif": encode(np.ones((4, 4), np.float32), "TIFF"),
    "marker.jpg": PICTURE[:3],
    "lost.jpg": None,
}
GOOD = 7
WITH_PLAIN = GOOD + 2


@pytest.fixture
def pictures(tmp_path):
    """Class `some` has 8 broken files and 7 good ones beside a plain one a class."""
    root = tmp_path / "pictures"
    for part in ("train", "val"):
        for name in ("other", "some"):
            (root / part / name).mkdir(parents=True)
            (root / part / name / "plain.jpg").write_bytes(PICTURE)
    files = BROKEN | {f"good{i}.jpg": jpeg(20, 30, i) for i in range(GOOD)}
    for name, content in files.items():
        path = root / "train" / "some" / name
        if content is None:
            path.symlink_to(tmp_path / "nowhere")
        else:
            path.write_bytes(content)
    return f"folder:{root}"


def config_data(batch_size, workers=0, max_bad_fraction=0.6):
    data = base_config().data
    data.batch_size = data.eval_batch_size = batch_size
    data.workers, data.max_bad_fraction = workers, max_bad_fraction
    return data


def read(split, data, training):
    """Images and labels of 9 batches of training, or of an evaluation."""
    batches = (
        training_batches(split, data, device_mesh(), seed=0, per_example=1, steps=9)
        if training
        else evaluation_batches(split, data, device_mesh())
    )
    with contextlib.closing(batches.iterate(0)) as host_batches:
        parts = jax.device_get(list(host_batches))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def named(caplog) -> list[str]:
    """Base names of the files that were reported, in the order of the reports."""
    found = [re.match(r"skipped .*/(\S+): \S", m) for m in caplog.messages]
    return [match[1] for match in found if match]


def test_in_memory_all_are_named_and_left_out(pictures, caplog):
    # Decoded now, and from the cache.
    for _ in range(2):
        caplog.clear()
        dataset = load_dataset(pictures, image_size=8, max_bad_fraction=0.6)
        assert sorted(named(caplog)) == sorted(BROKEN)
        assert (len(dataset.train), len(dataset.test)) == (WITH_PLAIN, 2)


def test_streamed_all_are_named_once_and_skipped(pictures, caplog):
    dataset = load_dataset(pictures, image_size=8, loader="stream")
    images, labels = read(dataset.train, config_data(8, workers=1), training=True)
    assert sorted(named(caplog)) == sorted(BROKEN)
    assert set(labels) == {0, 1}
    assert images.any(axis=(1, 2, 3)).all()


def test_evaluated_all_are_named_once_and_counted_out(pictures, caplog):
    splits = {"train_split": "val", "eval_split": "train"}
    flipped = load_dataset(pictures, image_size=8, loader="stream", **splits)
    _, labels = read(flipped.test, config_data(8), training=False)
    assert sorted(named(caplog)) == sorted(BROKEN)
    assert np.sum(labels >= 0) == WITH_PLAIN


@pytest.mark.parametrize("loader", ["memory", "stream"])
def test_too_many_stop_the_run_with_a_list(pictures, loader):
    def run():
        dataset = load_dataset(pictures, image_size=8, loader=loader)
        read(dataset.train, config_data(16, max_bad_fraction=0.01), training=True)

    message = refusal(run)
    assert "data.max_bad_fraction (0.01)" in message
    listed = re.findall(r"/some/(\S+) \(", message)
    assert set(listed) <= BROKEN.keys()
    assert len(listed) == (len(BROKEN) if loader == "memory" else 1)
