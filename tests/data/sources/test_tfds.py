"""TFDS sets of a few images in its own format, and the real CIFAR-10."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_sets import encode, noise, refusal, write_tfds_set

from nfnet_jax.data.dataset import contents
from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.sources import tfds_builder
from nfnet_jax.utils.download import RemoteFile

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def private_directories(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def write_set(
    data_dir, images, labels, *, shape=(None, None, 3), features=None, info=None, **png
):
    """Prepares a set whose splits both hold `images` (in TFDS's shuffled order)."""
    features = features or {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(names=CLASSES),
    }
    image_key, label_key, *others = features
    examples = [
        {
            image_key: encode(image.squeeze(), **png),
            label_key: label,
            **dict.fromkeys(others, 0),
        }
        for image, label in zip(images, labels, strict=True)
    ]
    splits = {"train": examples, "test": examples}
    write_tfds_set(data_dir, "little", features, splits, **info or {})


def pairs(images, labels):
    """Sorted examples of a split."""
    return sorted(
        (bytes(i), i.shape, int(k)) for i, k in zip(images, labels, strict=True)
    )


def split_pairs(split):
    return pairs(split.images, split.labels)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Data directory, images and labels of a set of 10 colour images of 6x5."""
    data_dir = tmp_path_factory.mktemp("data")
    images, labels = list(noise(10, 6, 5, 3)), [i % 3 for i in range(10)]
    write_set(data_dir, images, labels, shape=(6, 5, 3))
    return data_dir, images, labels


@pytest.fixture
def little(prepared, tmp_path):
    """A copy of `prepared` that a test may change."""
    data_dir, *examples = prepared
    return shutil.copytree(data_dir, tmp_path / "data"), *examples


def load(data_dir, name="tfds:little", **options):
    return load_dataset(name, data_dir=data_dir, **options)


def assert_refused(hints, *arguments, **options):
    line = refusal(load, *arguments, **options)
    assert all(hint in line for hint in hints), line


def test_images_labels_and_names(little):
    data_dir, images, labels = little
    dataset = load(data_dir)
    for split in (dataset.train, dataset.test):
        assert split_pairs(split) == pairs(images, labels)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
    assert dataset.class_names == tuple(CLASSES)
    assert dataset.name == "tfds:little" and dataset.image_shape == (6, 5, 3)


def test_order_is_the_order_on_disk(little):
    data_dir, _, _ = little
    dataset = load_dataset("tfds:little:1.2.3", data_dir=data_dir)
    builder = tfds.builder_from_directory(str(data_dir / "little" / "1.2.3"))
    source = builder.as_data_source(split="train")
    np.testing.assert_array_equal(dataset.train.labels, [e["label"] for e in source])
    np.testing.assert_array_equal(dataset.train.images, [e["image"] for e in source])


def test_slices_partition_a_split(little):
    data_dir, images, labels = little
    dataset = load(data_dir, train_split="train[:70%]", eval_split="train[70%:]")
    assert (len(dataset.train), len(dataset.test)) == (7, 3)
    both = [split_pairs(split) for split in (dataset.train, dataset.test)]
    assert sorted(both[0] + both[1]) == pairs(images, labels)


def test_environment_is_searched_after_data_dir(little, tmp_path, monkeypatch):
    data_dir, _, _ = little
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert load_dataset("tfds:little").num_classes == 3
    assert load(tmp_path / "none").num_classes == 3


def test_features_are_found_by_type(tmp_path):
    images = noise(4, 4, 4, 3)
    features = {
        "picture": tfds.features.Image(shape=(4, 4, 3)),
        "kind": tfds.features.ClassLabel(names=CLASSES),
        "width": tfds.features.Scalar(np.int64),
    }
    write_set(tmp_path, images, [0, 1, 2, 0], features=features)
    dataset = load(tmp_path)
    assert split_pairs(dataset.train) == pairs(images, [0, 1, 2, 0])


def test_supervised_label_wins_over_other_labels(tmp_path):
    features = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "fine": tfds.features.ClassLabel(names=CLASSES),
        "coarse": tfds.features.ClassLabel(num_classes=2),
    }
    info = {"supervised_keys": ("image", "fine")}
    write_set(tmp_path, noise(1, 4, 4, 3), [2], features=features, info=info)
    assert load(tmp_path).class_names == tuple(CLASSES)


def test_set_without_labels_is_refused(tmp_path):
    features = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "count": tfds.features.Scalar(np.int64),
    }
    write_set(tmp_path, noise(1, 4, 4, 3), [0], features=features)
    assert_refused(["class label", "count, image"], tmp_path)


def test_unlabelled_split_is_refused(tmp_path):
    write_set(tmp_path, noise(1, 4, 4, 3), [-1], shape=(4, 4, 3))
    assert_refused(["without a label", "data.eval_split"], tmp_path)


@pytest.mark.parametrize("shape", [(4, 6, 1), (None, None, 3)])
def test_grey_keeps_one_channel_and_an_open_shape_is_that_of_the_images(
    tmp_path, shape
):
    images = noise(3, 4, 6, shape[-1])
    write_set(tmp_path, images, [0, 1, 2], shape=shape)
    dataset = load(tmp_path)
    assert dataset.image_shape == images.shape[1:]
    assert split_pairs(dataset.train) == pairs(images, [0, 1, 2])


def test_differing_sizes_need_image_size(tmp_path):
    images = [noise(8, 8, 3), noise(8, 14, 3), noise(13, 8, 3)]
    write_set(tmp_path, images, [0, 1, 2])
    assert_refused(["differing sizes", "data.image_size"], tmp_path)
    dataset = load(tmp_path, image_size=8)
    # The shorter side is 8 already: nothing but the central crop happens.
    crops = [images[0], images[1][:, 3:11], images[2][2:10]]
    assert split_pairs(dataset.train) == pairs(crops, [0, 1, 2])
    dataset = load(tmp_path, image_size=5)
    assert dataset.image_shape == (5, 5, 3)


def test_a_rule_for_images_of_their_own_size_is_refused(little):
    hints = ["data.crop is 'crop_resize'", "set data.image_size"]
    assert_refused(hints, little[0], crop="crop_resize")


@pytest.mark.parametrize("key", ["train_split", "eval_split"])
def test_wrong_split(little, key):
    hints = [f"data.{key} is 'tran'", "little/1.2.3 has train, test; did you mean"]
    assert_refused(hints, little[0], **{key: "tran"})
    assert_refused(["holds no examples"], little[0], **{key: "train[0:0]"})


# --- Cache


def load_pairs(data_dir, **options):
    dataset = load(data_dir, **options)
    return [split_pairs(split) for split in (dataset.train, dataset.test)]


def test_other_options_do_not_share_a_cache(little, decoded):
    load_pairs(little[0])
    load_pairs(little[0], image_size=4)
    load_pairs(little[0], train_split="train[:50%]", eval_split="train[50%:]")
    assert len(decoded) == 20 + 20 + 10


def test_other_labels_in_the_same_place_do_not_share_a_cache(little):
    data_dir, images, labels = little
    assert load_pairs(data_dir)[0] == pairs(images, labels)
    shutil.rmtree(data_dir)
    others = [(label + 1) % 3 for label in labels]
    write_set(data_dir, images, others, shape=(6, 5, 3))
    assert load_pairs(data_dir)[0] == pairs(images, others)


@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_cache_is_rebuilt(little, cache, decoded, part, size):
    first = load_pairs(little[0])
    (file,) = cache.glob(f"*train*.{part}.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[:size])
    assert load_pairs(little[0]) == first
    assert len(decoded) == 20 + 10
    assert file.read_bytes() == whole


def test_nothing_but_arrays_stays_in_the_cache(little, cache):
    load_pairs(little[0])
    names = [path.suffixes[-2:] for path in cache.iterdir()]
    assert sorted(names) == [[".images", ".npy"]] * 2 + [[".labels", ".npy"]] * 2


def test_unwritable_cache_only_warns(little, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="NFNET_JAX_CACHE"):
        assert load_pairs(little[0])[0] == pairs(*little[1:])


def test_two_loads_at_once(little, decoded):
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(load_pairs, [little[0]] * 2))
    assert both == [[pairs(*little[1:])] * 2] * 2
    count = len(decoded)
    assert load_pairs(little[0]) == both[0] and len(decoded) == count


# --- Digests


def held(data_dir):
    return contents(load(data_dir, loader="stream"))


def test_a_set_is_known_wherever_it_lies_and_however_it_is_compressed(little, tmp_path):
    data_dir, images, labels = little
    before = held(data_dir)
    assert before["train"].startswith("10 images (")
    shutil.copytree(data_dir, tmp_path / "copy")
    assert held(tmp_path / "copy") == before
    assert contents(load(data_dir)) == before

    assert encode(images[0], compress_level=0) != encode(images[0])
    again = tmp_path / "again"
    write_set(again, images, labels, shape=(6, 5, 3), compress_level=0)
    assert held(again) == before


def test_a_set_of_other_examples_is_another(little, tmp_path):
    data_dir, images, labels = little
    before = held(data_dir)
    changed = images[:-1] + [images[-1] ^ 1]
    changes = [
        (changed, labels),
        (images, labels[1:] + labels[:1]),
        (images[:-1], labels[:-1]),
    ]
    for i, (others, numbers) in enumerate(changes):
        write_set(tmp_path / str(i), others, numbers, shape=(6, 5, 3))
        assert held(tmp_path / str(i)) != before


# --- Absent and damaged sets


def test_a_data_dir_that_is_not_there_is_not_made(tmp_path):
    (tmp_path / "data").mkdir()
    before = sorted(tmp_path.rglob("*"))
    hints = ["tfds:cifar10 is not prepared", "did you mean 'data'?"]
    assert_refused(hints, tmp_path / "dta", "tfds:cifar10")
    assert sorted(tmp_path.rglob("*")) == before


def test_unprepared_set_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_builder.importlib.util, "find_spec", lambda name: None)
    hints = [str(tmp_path), "pip install 'nfnet_jax[prepare]'"]
    assert_refused(hints, tmp_path, "tfds:mnist")


@pytest.fixture
def stock(monkeypatch):
    """Stand-in for a builder of TFDS where TensorFlow is; a test prepares by it."""
    builder = SimpleNamespace(name="little")
    monkeypatch.setattr(tfds_builder.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfds_builder, "_stock_builder", lambda *arguments: builder)
    return builder


def test_unprepared_set_is_prepared_where_tensorflow_is(tmp_path, stock):
    images, labels = noise(3, 4, 4, 3), [0, 1, 2]
    stock.download_and_prepare = lambda: write_set(tmp_path, images, labels)
    assert load_pairs(tmp_path)[0] == pairs(images, labels)


def test_failed_preparation_is_one_line(tmp_path, stock):
    def fail():
        raise AssertionError("Manual download required.\nLong\nstory")

    stock.download_and_prepare = fail
    assert_refused(["Manual download required."], tmp_path)


def test_cifar_without_network_says_where_to_put_the_archive(tmp_path, monkeypatch):
    archive = RemoteFile("http://127.0.0.1:9/c.tar.gz", "0" * 64, 9)
    monkeypatch.setattr(tfds_builder.cifar, "stock_archive", lambda name: archive)
    monkeypatch.setenv("no_proxy", "*")
    place = f"place the file at {tmp_path / 'downloads' / 'c.tar.gz'}"
    hints = [f"not prepared in {tmp_path}", archive.url, place, "set data.dir"]
    assert_refused(hints, tmp_path, "tfds:cifar10")


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("tfds:cifar01", ["did you mean 'cifar10"]),
        ("tfds:mnits", ["did you mean 'mnist'"]),
        ("tfds:mnist/none", ["no configuration 'none'"]),
        ("tfds:cifar10_corrupted/fogg_1", ["did you mean 'fog_1'"]),
        ("tfds:mnist:0.0.1", ["version 0.0.1"]),
    ],
)
def test_unknown_set(tmp_path, name, hints):
    assert_refused([str(tmp_path), *hints], tmp_path, name)


@pytest.mark.parametrize(
    ("change", "hints"),
    [
        (lambda text: text[:8], ["damaged", "data.dir"]),
        (
            lambda text: json.dumps(json.loads(text) | {"fileFormat": "tfrecord"}),
            ["is in the format tfrecord", "array_record", "data.dir"],
        ),
    ],
)
def test_damaged_info_and_a_set_prepared_for_tensorflow_only(little, change, hints):
    file = little[0] / "little" / "1.2.3" / "dataset_info.json"
    file.write_text(change(file.read_text()))
    assert_refused([str(little[0] / "little"), *hints], little[0])


@pytest.mark.parametrize("damage", ["missing", "truncated", "overwritten"])
def test_damaged_records(little, damage):
    directory = little[0] / "little" / "1.2.3"
    (file,) = directory.glob("*test*array_record*")
    content = bytearray(file.read_bytes())
    file.unlink()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "overwritten":
        middle = len(content) // 3
        content[300 : middle + 300] = os.urandom(middle)
        file.write_bytes(content)
    assert_refused([str(directory), "damaged", "'test'"], little[0])


# --- The real CIFAR-10

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("TFDS_DATA_DIR") or REPOSITORY.parent / "shared" / "tfds")


needs_cifar10 = pytest.mark.skipif(
    not (SHARED / "cifar10").is_dir(),
    reason="no prepared CIFAR-10: set TFDS_DATA_DIR to a directory with it",
)


@needs_cifar10
def test_digests_of_the_real_cifar10_do_not_change():
    """By these, runs of earlier versions know their data."""
    assert contents(load(SHARED, "tfds:cifar10", loader="stream")) == {
        "train": "50,000 images (dca529c5f68ac1b2)",
        "test": "10,000 images (a38bcd0ca32d99d9)",
    }


@needs_cifar10
@pytest.mark.slow
def test_real_cifar10(cache):
    found = load(SHARED, "tfds:cifar10")
    np.testing.assert_allclose(found.mean, [0.49140, 0.48216, 0.44653], atol=6e-6)
    # The published per-channel deviations of the training images.
    np.testing.assert_allclose(found.std, [0.2470, 0.2435, 0.2616], atol=6e-5)
    assert found.train.images.shape == (50_000, 32, 32, 3)
    assert found.test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(found.train.labels).tolist() == [5000] * 10
    assert np.bincount(found.test.labels).tolist() == [1000] * 10
    assert (found.class_names[0], found.class_names[9]) == ("airplane", "truck")
    shutil.rmtree(cache)
