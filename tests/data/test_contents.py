"""Digests of data sets: independent of their place, changed by any of their content."""

import os
import shutil

import numpy as np
import pytest
from data_sets import encode, noise

from nfnet_jax.data import dataset as types
from nfnet_jax.data.dataset import contents
from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.sources import file_source
from nfnet_jax.data.sources.arrays import from_arrays

SIDE = 4


@pytest.fixture
def folder(tmp_path):
    """Three classes of five images whose files all have one size."""
    for label, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(5):
            content = encode(noise(SIDE, SIDE, 3, seed=5 * label + i), "BMP")
            (tmp_path / "set" / name / f"{i}.bmp").write_bytes(content)
    return tmp_path / "set"


def load(path, **options):
    return load_dataset(f"folder:{path}", image_size=SIDE, **options)


def touch(folder):
    for path in folder.rglob("*.bmp"):
        os.utime(path, (1, 1))
    return folder


def link(folder):
    (folder.parent / "link").symlink_to(folder)
    return folder.parent / "link"


PLACES = {
    "moved": lambda folder: folder.rename(folder.with_name("moved")),
    "copied": lambda folder: shutil.copytree(folder, folder.with_name("copy")),
    "touched": touch,
    "linked": link,
}


@pytest.mark.parametrize("place", PLACES)
def test_the_same_files_elsewhere_are_the_same_data(folder, place):
    before = contents(load(folder))
    assert contents(load(PLACES[place](folder))) == before
    assert before["train"].startswith("12 images (")
    assert before["test"].startswith("3 images (")


def test_every_way_of_reading_tells_the_same(folder, monkeypatch):
    streamed = contents(load(folder, loader="stream"))
    # Decoded now, and from the cache.
    assert contents(load(folder)) == contents(load(folder)) == streamed
    monkeypatch.chdir(folder.parent)
    for name in ("set", "set/", "./set", "../" + folder.parent.name + "/set"):
        assert contents(load(name)) == streamed


def exchange(folder):
    """Two images of different classes."""
    first, second = folder / "ant/0.bmp", folder / "bee/0.bmp"
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])


def replace_one(folder):
    """Another file of the same size and time."""
    path = folder / "cat/3.bmp"
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


CHANGES = {
    "added": lambda folder: shutil.copy(folder / "ant/0.bmp", folder / "ant/9.bmp"),
    "removed": lambda folder: (folder / "ant/0.bmp").unlink(),
    "renamed": lambda folder: (folder / "ant/0.bmp").rename(folder / "ant/9.bmp"),
    "class renamed": lambda folder: (folder / "ant").rename(folder / "Ant"),
    "exchanged": exchange,
    "one replaced": replace_one,
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_files_are_other_data_and_not_those_of_the_cache(folder, cache, change):
    before = contents(load(folder))
    CHANGES[change](folder)
    found = load(folder)
    assert contents(found) != before
    shutil.rmtree(cache)
    fresh = load(folder)
    for one, other in ((found.train, fresh.train), (found.test, fresh.test)):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_of_a_large_folder_all_names_and_sizes_count_and_some_contents(
    folder, monkeypatch
):
    size = (folder / "ant/0.bmp").stat().st_size
    monkeypatch.setattr(file_source, "FINGERPRINT_BYTES", 2 * size)
    read = []
    read_file = file_source.read_file
    monkeypatch.setattr(
        file_source, "read_file", lambda path: read.append(path) or read_file(path)
    )
    before = contents(load(folder, loader="stream"))
    assert len(read) == 2 + 2
    (folder / "ant/0.bmp").write_bytes(b"longer" + (folder / "ant/0.bmp").read_bytes())
    assert contents(load(folder, loader="stream")) != before


def arrays(images, labels, names=("ant", "bee"), split="train"):
    splits = {"train": (images, labels), "test": (images[:2], labels[:2])}
    return contents(from_arrays(splits, train_split=split, class_names=names))


def test_arrays_are_known_by_pixels_classes_and_order(monkeypatch):
    images = noise(6, 3, 3, 1)
    labels = np.array([0, 1, 0, 1, 1, 0])
    before = arrays(images, labels)
    assert arrays(images.copy(), labels.astype(np.int64)) == before
    assert arrays(images, 1 - labels, names=("bee", "ant")) == before
    assert arrays(images, 1 - labels)["train"] != before["train"]
    assert arrays(images[::-1], labels[::-1])["train"] != before["train"]
    assert arrays(images.reshape(6, 9, 1, 1), labels)["train"] != before["train"]
    assert arrays(images, labels, split="train[:5]")["train"] != before["train"]
    changed = images.copy()
    changed[0, 0, 0] ^= 1
    assert arrays(changed, labels) != before
    monkeypatch.setattr(types, "FINGERPRINT_BYTES", 9)
    assert arrays(changed, labels) != arrays(images, labels)
