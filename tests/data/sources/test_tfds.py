"""TFDS sets of a few images in its own format, and the real CIFAR-10."""

import functools
import io
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nfnet_jax.data.dataset import contents
from nfnet_jax.data.load import load_dataset
from nfnet_jax.utils.download import RemoteFile
from nfnet_jax.utils.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")
Image = pytest.importorskip("PIL.Image")

from nfnet_jax.data import decoding  # noqa: E402
from nfnet_jax.data.sources import tfds_builder  # noqa: E402

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def private_directories(tmp_path, monkeypatch):
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def png(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG", **options)
    return buffer.getvalue()


def random_images(*shapes, seed=0):
    random = np.random.RandomState(seed)
    return [random.randint(0, 256, shape).astype(np.uint8) for shape in shapes]


def write_set(
    data_dir,
    images,
    labels,
    *,
    name="little",
    shape=(None, None, 3),
    features=None,
    supervised_keys=None,
    splits=("train", "test"),
):
    """Prepares a set whose splits all hold `images` (in TFDS's shuffled order)."""
    features = features or {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(names=CLASSES),
    }
    image_key, label_key = list(features)[:2]
    set_name = name

    class Little(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")
        name = set_name
        pkg_dir_path = None

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=supervised_keys,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            rest = {key: 0 for key in list(features)[2:]}
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, {image_key: png(image), label_key: label, **rest}

    Little(data_dir=str(data_dir), file_format="array_record").download_and_prepare()
    return data_dir / name / "1.2.3"


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
    images, labels = random_images(*[(6, 5, 3)] * 10), [i % 3 for i in range(10)]
    write_set(data_dir, images, labels, shape=(6, 5, 3))
    return data_dir, images, labels


@pytest.fixture
def little(prepared, tmp_path):
    """A copy of `prepared` that a test may change."""
    data_dir, *examples = prepared
    return shutil.copytree(data_dir, tmp_path / "data"), *examples


def load(data_dir, name="tfds:little", **options):
    return load_dataset(name, data_dir=data_dir, **options)


def refused(*arguments, **options) -> str:
    with pytest.raises(UserError) as error:
        load(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_holds(line, *hints):
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
    dataset = load(
        data_dir,
        train_split="train[:70%]",
        eval_split="train[70%:]",
    )
    assert (len(dataset.train), len(dataset.test)) == (7, 3)
    both = [split_pairs(split) for split in (dataset.train, dataset.test)]
    assert sorted(both[0] + both[1]) == pairs(images, labels)


def test_environment_is_searched_after_data_dir(little, tmp_path, monkeypatch):
    data_dir, _, _ = little
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert load_dataset("tfds:little").num_classes == 3
    assert load(tmp_path / "none").num_classes == 3


def test_features_are_found_by_type(tmp_path):
    images = random_images(*[(4, 4, 3)] * 4)
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
    images, labels = random_images(*[(4, 4, 3)] * 4), [0, 1, 2, 2]
    write_set(
        tmp_path, images, labels, features=features, supervised_keys=("image", "fine")
    )
    dataset = load(tmp_path)
    assert dataset.class_names == tuple(CLASSES)


def test_set_without_labels_is_refused(tmp_path):
    features = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "count": tfds.features.Scalar(np.int64),
    }
    write_set(tmp_path, random_images((4, 4, 3)), [0], features=features)
    assert_holds(refused(tmp_path), "class label", "count, image")


def test_unlabelled_split_is_refused(tmp_path):
    write_set(tmp_path, random_images((4, 4, 3)), [-1], shape=(4, 4, 3))
    assert_holds(refused(tmp_path), "without a label", "data.eval_split")


def test_grey_images_keep_one_channel(tmp_path):
    images = random_images(*[(4, 6, 1)] * 3)
    write_set(tmp_path, images, [0, 1, 2], shape=(4, 6, 1))
    dataset = load(tmp_path)
    assert dataset.image_shape == (4, 6, 1)
    assert split_pairs(dataset.train) == pairs(images, [0, 1, 2])


def test_open_shape_of_equal_images(tmp_path):
    images = random_images(*[(4, 6, 3)] * 3)
    write_set(tmp_path, images, [0, 1, 2])
    dataset = load(tmp_path)
    assert split_pairs(dataset.train) == pairs(images, [0, 1, 2])


def test_differing_sizes_need_image_size(tmp_path):
    images = random_images((8, 8, 3), (8, 14, 3), (13, 8, 3))
    write_set(tmp_path, images, [0, 1, 2])
    assert_holds(refused(tmp_path), "differing sizes", "data.image_size")
    dataset = load(tmp_path, image_size=8)
    # The shorter side is 8 already: nothing but the central crop happens.
    crops = [images[0], images[1][:, 3:11], images[2][2:10]]
    assert split_pairs(dataset.train) == pairs(crops, [0, 1, 2])
    dataset = load(tmp_path, image_size=5)
    assert dataset.image_shape == (5, 5, 3)


def test_a_rule_for_images_of_their_own_size_is_refused(little):
    assert_holds(
        refused(little[0], crop="crop_resize"),
        "data.crop is 'crop_resize'",
        "set data.image_size",
    )


@pytest.mark.parametrize(
    ("split", "hints"),
    [
        ("tran", ["has train, test", "did you mean 'train'"]),
        ("validation[:10%]", ["has train, test"]),
        ("train[:9", ["train[:90%]"]),
        ("train[0:0]", ["no examples"]),
    ],
)
def test_wrong_split(little, split, hints):
    assert_holds(
        refused(little[0], train_split=split), f"data.train_split is {split!r}", *hints
    )


# --- Cache


@pytest.fixture
def decoded(monkeypatch):
    """The images decoded so far."""
    calls = []
    decode = decoding.decode_image

    def count(encoded, channels):
        calls.append(encoded)
        return decode(encoded, channels)

    monkeypatch.setattr(decoding, "decode_image", count)
    return calls


def load_pairs(data_dir, **options):
    dataset = load(data_dir, **options)
    return [split_pairs(split) for split in (dataset.train, dataset.test)]


def test_other_options_do_not_share_a_cache(little, decoded):
    load_pairs(little[0])
    load_pairs(little[0], image_size=4)
    load_pairs(little[0], train_split="train[:50%]", eval_split="train[50%:]")
    assert len(decoded) == 20 + 20 + 10


def test_other_data_of_the_same_name_do_not_share_a_cache(little, tmp_path, decoded):
    load_pairs(little[0])
    images = random_images(*[(6, 5, 3)] * 9, seed=1)
    write_set(tmp_path / "other", images, [0] * 9, shape=(6, 5, 3))
    assert load_pairs(tmp_path / "other")[0] == pairs(images, [0] * 9)


def test_other_labels_in_the_same_place_do_not_share_a_cache(little):
    data_dir, images, labels = little
    assert load_pairs(data_dir)[0] == pairs(images, labels)
    shutil.rmtree(data_dir)
    others = [(label + 1) % 3 for label in labels]
    write_set(data_dir, images, others, shape=(6, 5, 3))
    assert load_pairs(data_dir)[0] == pairs(images, others)


@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_cache_is_rebuilt(little, tmp_path, decoded, part, size):
    first = load_pairs(little[0])
    (file,) = (tmp_path / "cache").glob(f"*train*.{part}.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[:size])
    assert load_pairs(little[0]) == first
    assert len(decoded) == 20 + 10
    assert file.read_bytes() == whole


def test_nothing_but_arrays_stays_in_the_cache(little, tmp_path):
    load_pairs(little[0])
    names = [path.suffixes[-2:] for path in (tmp_path / "cache").iterdir()]
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


def test_a_set_is_known_wherever_it_lies_and_however_it_is_compressed(
    little, tmp_path, monkeypatch
):
    data_dir, images, labels = little
    before = held(data_dir)
    assert before["train"].startswith("10 images (")
    shutil.copytree(data_dir, tmp_path / "copy")
    assert held(tmp_path / "copy") == before
    assert contents(load(data_dir)) == before

    other_png = functools.partial(png, compress_level=0)
    assert other_png(images[0]) != png(images[0])
    monkeypatch.setattr(sys.modules[__name__], "png", other_png)
    write_set(tmp_path / "again", images, labels, shape=(6, 5, 3))
    assert held(tmp_path / "again") == before


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
    assert_holds(
        refused(tmp_path / "dta", "tfds:cifar10"),
        "tfds:cifar10 is not prepared",
        "did you mean 'data'?",
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def no_tensorflow(monkeypatch):
    monkeypatch.setattr(tfds_builder.importlib.util, "find_spec", lambda name: None)


def test_unprepared_set_names_the_extra(tmp_path, no_tensorflow):
    assert_holds(
        refused(tmp_path, "tfds:mnist"),
        str(tmp_path),
        "pip install 'nfnet_jax[prepare]'",
    )


def test_unprepared_set_is_prepared_where_tensorflow_is(tmp_path, monkeypatch):
    images = random_images(*[(4, 4, 3)] * 3)

    class Stock:
        name = "little"

        def download_and_prepare(self):
            write_set(tmp_path, images, [0, 1, 2], shape=(4, 4, 3))

    monkeypatch.setattr(tfds_builder.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfds_builder, "_stock_builder", lambda *arguments: Stock())
    assert load_pairs(tmp_path)[0] == pairs(images, [0, 1, 2])


def test_failed_preparation_is_one_line(tmp_path, monkeypatch):
    class Stock:
        name = "little"

        def download_and_prepare(self):
            raise AssertionError("Manual download required.\nLong\nstory")

    monkeypatch.setattr(tfds_builder.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfds_builder, "_stock_builder", lambda *arguments: Stock())
    assert_holds(refused(tmp_path), "Manual download required.")


def test_cifar_without_network_says_where_to_put_the_archive(tmp_path, monkeypatch):
    archive = RemoteFile("http://127.0.0.1:9/c.tar.gz", "0" * 64, 9)
    monkeypatch.setattr(tfds_builder.cifar, "stock_archive", lambda name: archive)
    monkeypatch.setenv("no_proxy", "*")
    line = refused(tmp_path, "tfds:cifar10")
    place = tmp_path / "downloads" / "c.tar.gz"
    assert_holds(line, f"not prepared in {tmp_path}", archive.url, str(place))


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
    assert_holds(refused(tmp_path, name), str(tmp_path), *hints)


def edit_info(directory, **changes):
    file = directory / "dataset_info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_set_prepared_for_tensorflow_only(little):
    edit_info(little[0] / "little" / "1.2.3", fileFormat="tfrecord")
    assert_holds(refused(little[0]), "tfrecord", "array_record", "data.dir")


def test_damaged_info(little):
    directory = little[0] / "little" / "1.2.3"
    (directory / "dataset_info.json").write_text('{"name":')
    assert_holds(refused(little[0]), str(little[0] / "little"), "damaged")


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
    assert_holds(refused(little[0]), str(directory), "damaged", "'test'")


# --- The real CIFAR-10

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("TFDS_DATA_DIR") or REPOSITORY.parent / "shared" / "tfds")


@pytest.fixture(scope="module")
def real_cifar10(tmp_path_factory):
    if not (SHARED / "cifar10").is_dir():
        pytest.skip("no prepared CIFAR-10: set TFDS_DATA_DIR to a directory with it")
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFNET_JAX_CACHE", str(cache))
        yield load_dataset("tfds:cifar10", data_dir=SHARED)
    shutil.rmtree(cache)


def test_digests_of_the_real_cifar10_do_not_change():
    """By these, runs of earlier versions know their data."""
    if not (SHARED / "cifar10").is_dir():
        pytest.skip("no prepared CIFAR-10: set TFDS_DATA_DIR to a directory with it")
    dataset = load_dataset("tfds:cifar10", data_dir=SHARED, loader="stream")
    assert contents(dataset) == {
        "train": "50,000 images (dca529c5f68ac1b2)",
        "test": "10,000 images (a38bcd0ca32d99d9)",
    }


@pytest.mark.slow
def test_real_cifar10(real_cifar10):
    np.testing.assert_allclose(
        real_cifar10.mean, [0.49140, 0.48216, 0.44653], atol=6e-6
    )
    # The published per-channel deviations of the training images.
    np.testing.assert_allclose(real_cifar10.std, [0.2470, 0.2435, 0.2616], atol=6e-5)
    assert real_cifar10.train.images.shape == (50_000, 32, 32, 3)
    assert real_cifar10.test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(real_cifar10.train.labels).tolist() == [5000] * 10
    assert np.bincount(real_cifar10.test.labels).tolist() == [1000] * 10
    assert real_cifar10.class_names[0] == "airplane"
    assert real_cifar10.class_names[9] == "truck"
