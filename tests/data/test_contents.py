"""Digests of data sets: independent of their place, changed by any of their content."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from nfnet_jax.data import dataset as types
from nfnet_jax.data.dataset import contents
from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.sources import file_source
from nfnet_jax.data.sources.arrays import from_arrays

SIDE = 4


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Three classes of five images whose files all have one size."""
    random = np.random.RandomState(0)
    for name in ("ant", "bee", "cat"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(5):
            pixels = random.randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.bmp")
    return tmp_path / "set"


def load(path, **options):
    return load_dataset(f"folder:{path}", image_size=SIDE, **options)


def move(folder):
    return folder.rename(folder.with_name("moved"))


def copy(folder):
    return shutil.copytree(folder, folder.with_name("copy"))


def link(folder):
    (folder.parent / "link").symlink_to(folder)
    return folder.parent / "link"


def touch(folder):
    for path in folder.rglob("*.bmp"):
        os.utime(path, (1, 1))
    return folder


@pytest.mark.parametrize("place", [move, copy, link, touch])
def test_the_same_files_elsewhere_are_the_same_data(folder, place):
    before = contents(load(folder))
    assert contents(load(place(folder))) == before
    assert before["train"].startswith("12 images (")
    assert before["test"].startswith("3 images (")


def test_every_way_of_reading_tells_the_same(folder, monkeypatch):
    streamed = contents(load(folder, loader="stream"))
    # Decoded now, and from the cache.
    assert contents(load(folder)) == contents(load(folder)) == streamed
    monkeypatch.chdir(folder.parent)
    for name in ("set", "set/", "./set", "../" + folder.parent.name + "/set"):
        assert contents(load(name)) == streamed


def add(folder):
    shutil.copy(folder / "ant/0.bmp", folder / "ant/9.bmp")


def remove(folder):
    (folder / "ant/0.bmp").unlink()


def rename(folder):
    (folder / "ant/0.bmp").rename(folder / "ant/9.bmp")


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


def rename_class(folder):
    (folder / "ant").rename(folder / "Ant")


CHANGES = [add, remove, rename, exchange, replace_one, rename_class]


@pytest.mark.parametrize("change", CHANGES)
def test_other_files_are_other_data(folder, change):
    before = contents(load(folder))
    change(folder)
    assert contents(load(folder)) != before


@pytest.mark.parametrize("change", CHANGES)
def test_the_cache_never_gives_what_was_there_before(folder, tmp_path, change):
    load(folder)
    change(folder)
    found = load(folder)
    shutil.rmtree(tmp_path / "cache")
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
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (6, 3, 3, 1)).astype(np.uint8)
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
