"""CIFAR archives of a few random records, served on the loopback interface."""

import hashlib
import io
import subprocess
import sys
import tarfile

import file_server
import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_sets import refusal
from tensorflow_datasets.core import hashing
from tensorflow_datasets.image_classification import cifar as stock

from nfnet_jax.data.sources import cifar
from nfnet_jax.utils.download import RemoteFile

RECORDS_PER_FILE = 7
FILES = {
    "cifar10": [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"],
    "cifar100": ["train.bin", "test.bin"],
}
PREFIX = {"cifar10": "cifar-10-batches-bin/", "cifar100": "cifar-100-binary/"}
LABEL_FILES = {
    "cifar10": {"batches.meta.txt": 10},
    "cifar100": {"coarse_label_names.txt": 20, "fine_label_names.txt": 100},
}


def make_records(name):
    """Labels uint8 [F, R, 1 or 2] and planes uint8 [F, R, 3, 32, 32] by file."""
    random = np.random.RandomState(5)
    files = len(FILES[name])
    planes = random.randint(0, 256, (files, RECORDS_PER_FILE, 3, 32, 32))
    limits = list(LABEL_FILES[name].values())
    labels = random.randint(0, limits, (files, RECORDS_PER_FILE, len(limits)))
    return labels.astype(np.uint8), planes.astype(np.uint8)


def make_archive(name):
    labels, planes = make_records(name)
    flat = np.concatenate([labels, planes.reshape(*planes.shape[:2], -1)], axis=2)
    content = {file: flat[i].tobytes() for i, file in enumerate(FILES[name])}
    for file, count in LABEL_FILES[name].items():
        text = "".join(f"{file[:4]}_{i}\n" for i in range(count)) + "\n"
        content[file] = text.encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file, data in content.items():
            info = tarfile.TarInfo(PREFIX[name] + file)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("name", cifar.NAMES)
def test_stock_archive_is_the_stock_builders(name):
    archive = cifar.stock_archive(name)
    number = name.removeprefix("cifar")
    assert archive.name == f"cifar-{number}-binary.tar.gz"
    assert len(archive.sha256) == 64 and 160e6 < archive.size < 180e6


@pytest.fixture(scope="module", params=cifar.NAMES)
def prepared(request, tmp_path_factory):
    """Name and data directory of a set prepared over HTTP."""
    name = request.param
    data_dir = tmp_path_factory.mktemp(name)
    server = file_server.Server(make_archive(name), cuts=[20_000])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        filename = cifar.stock_archive(name).filename
        cifar.prepare(name, data_dir, archive=server.file(filename))
    server.shutdown()
    server.server_close()
    return name, data_dir


def test_stock_builder_reads_what_was_written_in_its_order(prepared):
    """TFDS sorts records by the hash of their key, which is their number."""
    name, data_dir = prepared
    keys = ["label"] if name == "cifar10" else ["coarse_label", "label"]
    labels, planes = make_records(name)
    for split, files in (("train", slice(None, -1)), ("test", slice(-1, None))):
        own_labels = labels[files].reshape(-1, len(keys))
        images = planes[files].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        order = sorted(range(len(images)), key=hashing.Hasher(split).hash_key)
        source = tfds.data_source(name, split=split, data_dir=data_dir, download=False)
        for i, example in zip(order, source, strict=True):
            assert example["id"] == f"{split}_{i:05d}".encode()
            np.testing.assert_array_equal(example["image"], images[i])
            assert [int(example[key]) for key in keys] == own_labels[i].tolist()


def test_info_is_the_stock_builders(prepared):
    name, data_dir = prepared
    info = tfds.builder(name, data_dir=data_dir).info
    assert info.module_name == stock.__name__
    assert info.supervised_keys == ("image", "label")
    prefix = "batc" if name == "cifar10" else "fine"
    assert info.features["label"].names[:2] == [f"{prefix}_0", f"{prefix}_1"]
    assert "Krizhevsky" in info.citation


def test_prepared_set_is_left_alone(prepared):
    name, data_dir = prepared
    nowhere = RemoteFile("http://127.0.0.1:9/x.tar.gz", "0" * 64, 1)
    cifar.prepare(name, data_dir, archive=nowhere)


def place(data_dir, content):
    downloads = data_dir / "downloads"
    downloads.mkdir()
    (downloads / "a.tar.gz").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return RemoteFile("http://127.0.0.1:9/a.tar.gz", digest, len(content))


PREPARE = """
import os, sys
from nfnet_jax.data.sources import cifar
from nfnet_jax.utils.download import RemoteFile
data_dir, sha256, size, images = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
encode = cifar.encode_png
def encode_or_die(image):
    global images
    images -= 1
    return encode(image) if images >= 0 else os._exit(9)
cifar.encode_png = encode_or_die
archive = RemoteFile("http://127.0.0.1:9/a.tar.gz", sha256, size)
cifar.prepare("cifar10", data_dir, archive=archive)
"""


def start_preparing(data_dir, archive, images):
    """A process that prepares, and dies without any cleaning up after `images`."""
    arguments = [data_dir, archive.sha256, archive.size, images]
    return subprocess.Popen([sys.executable, "-c", PREPARE, *map(str, arguments)])


def test_a_killed_process_leaves_nothing_that_looks_prepared(tmp_path):
    archive = place(tmp_path, make_archive("cifar10"))
    # It dies in the middle of the test split, with the training split complete.
    assert start_preparing(tmp_path, archive, 5 * RECORDS_PER_FILE + 2).wait() == 9
    assert not tfds.builder("cifar10", data_dir=tmp_path).is_prepared()
    cifar.prepare("cifar10", tmp_path, archive=archive)
    source = tfds.data_source("cifar10", split="test", data_dir=tmp_path)
    assert len(source) == RECORDS_PER_FILE


def test_two_processes_prepare_at_once(tmp_path):
    archive = place(tmp_path, make_archive("cifar10"))
    processes = [start_preparing(tmp_path, archive, 10**9) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    source = tfds.data_source("cifar10", split="train", data_dir=tmp_path)
    assert len({example["id"] for example in source}) == 5 * RECORDS_PER_FILE


def test_directory_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.touch()
    line = refusal(cifar.prepare, "cifar10", file)
    assert "set data.dir to a writable" in line
