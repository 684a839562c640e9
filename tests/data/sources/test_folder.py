"""Folders of images: both forms, any mode and size, and errors."""

import hashlib
import os
import re
import shutil
import unicodedata

import numpy as np
import pytest
from data_sets import encode, noise, refusal
from PIL import Image, ImageOps

from nfnet_jax.data import decoding
from nfnet_jax.data.dataset import BadImage, EncodedSplit
from nfnet_jax.data.images.decode import open_image
from nfnet_jax.data.images.preprocess import crop_resize, resize_crop_32
from nfnet_jax.data.load import load_dataset

MODES = ("RGB", "L", "RGBA", "P", "CMYK", "LA", "1", "I;16", "RGB", "L")
CLASSES = tuple(f"class {i}" for i in range(10))


def draw(path, mode="RGB", size=(12, 9), seed=0):
    """Writes random pixels of `mode`, (width, height) of `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        image = Image.fromarray(257 * noise(*size[::-1], seed=seed).astype(np.uint16))
    else:
        image = Image.fromarray(noise(*size[::-1], 3, seed=seed)).convert(mode)
    image.save(path)


def draw_classes(root, count, classes=CLASSES):
    """`count` images a class; every class has its mode, every image its size."""
    for label, name in enumerate(classes):
        extension = "tif" if MODES[label] == "CMYK" else "png"
        for i in range(count):
            path = root / name / f"{i}.{extension}"
            draw(path, MODES[label], (7 + i, 20 - i), 100 * label + i)


@pytest.fixture
def flat(tmp_path):
    draw_classes(tmp_path / "set", 5)
    return tmp_path / "set"


@pytest.fixture
def split(tmp_path):
    draw_classes(tmp_path / "set" / "train", 3, CLASSES[:3])
    draw_classes(tmp_path / "set" / "val", 2, CLASSES[:3])
    return tmp_path / "set"


def load(root, image_size=8, **options):
    return load_dataset(f"folder:{root}", image_size=image_size, **options)


def test_every_mode_and_size_becomes_the_same_array(flat):
    dataset = load(flat)
    assert dataset.class_names == CLASSES
    assert dataset.train.images.shape == (40, 8, 8, 3)
    assert dataset.test.images.shape == (10, 8, 8, 3)
    assert np.bincount(dataset.train.labels).tolist() == [4] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1] * 10
    grey = dataset.train.images[dataset.train.labels == MODES.index("L")]
    assert (grey == grey[..., :1]).all()
    deep = dataset.train.images[dataset.train.labels == MODES.index("I;16")]
    # 16-bit values are scaled, not cut off.
    assert 80 < deep.mean() < 180 and deep.std() > 20


def test_the_held_out_fifth_follows_the_hash_of_the_path(flat):
    dataset = load(flat)
    paths = [f"class 0/{i}.png" for i in range(5)]
    first = min(paths, key=lambda path: hashlib.sha256(path.encode()).digest())
    alone = flat.parent / "alone"
    for part, names in (("test", [first]), ("train", set(paths) - {first})):
        for name in names:
            (alone / part / name).parent.mkdir(parents=True, exist_ok=True)
            (alone / part / name).write_bytes((flat / name).read_bytes())
        draw(alone / part / "other" / "x.png")
    same = load(alone)
    for one, other in ((dataset.train, same.train), (dataset.test, same.test)):
        images = [sorted(map(bytes, s.images[s.labels == 0])) for s in (one, other)]
        assert images[0] == images[1]


def test_directories_that_are_splits(split):
    dataset = load(split)
    assert (len(dataset.train), len(dataset.test)) == (9, 6)
    for name in ("val", "validation"):
        assert len(load(split, eval_split=name).test) == 6
    assert len(load(split, train_split="val", eval_split="train").test) == 9


SPELLINGS = {
    "train": ("train", "Train", "TRAIN", "training", "Training"),
    "test": ("test", "TEST", "testing", "Testing"),
    "val": ("val", "Val", "valid", "Validation", "VALIDATION"),
}


@pytest.mark.parametrize("part", ["test", "val"])
@pytest.mark.parametrize("train", SPELLINGS["train"])
def test_splits_are_known_in_every_spelling(split, train, part):
    (split / "train").rename(split / train)
    for other in SPELLINGS[part]:
        next(d for d in split.iterdir() if d.name != train).rename(split / other)
        for ask in (part, part.title(), other):
            found = load(split, eval_split=ask)
            assert found.class_names == CLASSES[:3]
            assert (len(found.train), len(found.test)) == (9, 6)
        halves = load(split, train_split="Training[:50%]", eval_split="train[50%:]")
        assert len(halves.train) + len(halves.test) == 9


@pytest.mark.parametrize("part", SPELLINGS)
def test_two_directories_of_one_split_are_refused(split, part):
    (split / "val").rename(split / part.replace("train", "val"))
    present = SPELLINGS[part][0]
    for other in SPELLINGS[part][1:]:
        shutil.copytree(split / present, split / other)
        line = refused(split)
        assert f"'{present}'" in line and f"'{other}'" in line
        assert "both mean" in line
        shutil.rmtree(split / other)
    load(split)


@pytest.mark.parametrize("names", [("train", "plane"), ("Train", "Test"), ("val", "b")])
def test_classes_may_be_called_as_splits_are(tmp_path, names, caplog):
    for name in names:
        for i in range(2):
            draw(tmp_path / name / f"{i}.png", seed=i)
    assert load(tmp_path).class_names == tuple(sorted(names))
    said = [line for line in caplog.messages if "are taken for classes" in line]
    assert len(said) == (names == ("Train", "Test"))


@pytest.mark.parametrize(
    "names",
    "training_set test_set,train2017 val2017,trainset testset,train.d dev.d,"
    "images-train images-val2,TrainImages EvaluationImages".split(","),
)
def test_what_looks_like_splits_is_no_class(tmp_path, names):
    names = names.split()
    for name in names:
        draw_classes(tmp_path / name, 2, CLASSES[:2])
    line = refused(tmp_path)
    assert all(name in line for name in names) and "look like splits" in line
    # Directories of images may have such names.
    for name in names:
        shutil.rmtree(tmp_path / name)
        for i in range(2):
            draw(tmp_path / name / f"{i}.png", seed=i)
    assert len(load(tmp_path).class_names) == 2


def test_what_is_passed_over_is_said_once(split, caplog):
    draw(split / "train" / "class 0" / "a.png")
    for name in ("train/class 0/a.heic", "train/class 1/.DS_Store", "labels.csv"):
        (split / name).touch()
    (split / "train" / ".cache").mkdir()
    draw(split / "loose.png")
    draw(split / "train" / "looser.png")
    draw(split / "test" / "unlabelled.png")
    os.mkfifo(split / "val" / "class 0" / "pipe.png")
    assert len(load(split).train) == 10
    load(split)
    (line,) = caplog.messages
    start, _, counts = line.partition(": passed over ")
    assert start == f"folder:{split}"
    assert set(counts.split(", ")) == {
        "1 .heic",
        "1 .csv",
        "2 hidden",
        "2 image in no class directory",
        "1 directory 'test'",
        "1 pipe or device",
    }


def test_linked_directories_are_classes_and_parts_of_them(flat, tmp_path, caplog):
    draw_classes(tmp_path / "store", 3, ("new", "more"))
    (flat / "linked").symlink_to(tmp_path / "store" / "new")
    (flat / "class 0" / "more").symlink_to(tmp_path / "store" / "more")
    (flat / "class 0" / "up").symlink_to("..")
    dataset = load(flat)
    assert dataset.class_names == (*CLASSES, "linked")
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    assert np.bincount(labels).tolist() == [8] + 9 * [5] + [3]
    assert caplog.messages == [
        f"folder:{flat}: passed over 1 link to a directory listed already"
    ]
    (flat / "whole").symlink_to(".")
    assert "whole holds no images" in refused(flat)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_images_of_both_splits_are_said(split, link, caplog):
    shared = split / "val" / "class 1" / "shared.png"
    link(split / "train" / "class 1" / "0.png", shared)
    load(split)
    assert caplog.messages == [
        f"folder:{split}: 1 of 7 test images, such as val/class 1/shared.png, are "
        "trained on under another name"
    ]
    # Nothing is said where the same split is asked for twice.
    caplog.clear()
    load(split, eval_split="train")
    assert caplog.messages == []


COMPOSED, DECOMPOSED = (unicodedata.normalize(f, "caf\u00e9") for f in ("NFC", "NFD"))


def test_composed_and_decomposed_names_are_the_same_class(tmp_path):
    draw(tmp_path / "train" / COMPOSED / "0.png", seed=1)
    draw(tmp_path / "val" / DECOMPOSED / "0.png", seed=2)
    for part in ("train", "val"):
        draw(tmp_path / part / "cafz" / "0.png", seed=3)
    dataset = load(tmp_path)
    assert dataset.class_names == ("cafz", COMPOSED)
    for found, seed in ((dataset.train, 1), (dataset.test, 2)):
        draw(tmp_path / "x" / "x.png", seed=seed)
        expected = load_pixels(tmp_path / "x" / "x.png")
        (image,) = found.images[found.labels == 1]
        np.testing.assert_array_equal(image, expected)


def load_pixels(path):
    split = EncodedSplit("", None, (8, 8, 3), resize=True)
    return decoding.fit(split, open_image(path))


def test_one_class_in_two_spellings_is_refused(flat):
    draw(flat / COMPOSED / "0.png")
    draw(flat / DECOMPOSED / "0.png")
    line = refused(flat)
    assert r"'cafe\u0301' and 'caf\xe9', two spellings of the same name" in line


def test_the_held_out_fifth_is_the_same_in_both_spellings(tmp_path):
    names = [f"{COMPOSED}/{COMPOSED}{i}.png" for i in range(20)]
    for form in ("NFC", "NFD"):
        for i, name in enumerate(names):
            draw(tmp_path / form / unicodedata.normalize(form, name), seed=i)
            draw(tmp_path / form / "other" / f"{i}.png", seed=100 + i)
    one, other = load(tmp_path / "NFC"), load(tmp_path / "NFD")
    np.testing.assert_array_equal(one.test.images, other.test.images)
    np.testing.assert_array_equal(one.train.images, other.train.images)


def test_names_that_are_no_text_are_classes(tmp_path):
    for name in (b"caf\xe9", b"tea"):
        folder = os.fsencode(tmp_path) + b"/set/" + name
        os.makedirs(folder)
        for i in range(2):
            draw(tmp_path / "x.png", seed=i)
            shutil.copy(tmp_path / "x.png", folder + b"/\xff%d.png" % i)
    dataset = load(tmp_path / "set")
    assert dataset.class_names == (r"caf\xe9", "tea")
    assert len(dataset.train) == 2


def test_the_second_load_decodes_nothing_until_a_file_changes(flat, decoded):
    first = load(flat)
    assert len(decoded) == 50
    np.testing.assert_array_equal(load(flat).train.images, first.train.images)
    assert len(decoded) == 50
    load(flat, image_size=6)
    assert len(decoded) == 100
    draw(flat / "class 0" / "0.png", size=(40, 30))
    load(flat)
    assert len(decoded) > 100


@pytest.mark.parametrize("loader", ["memory", "stream"])
def test_turned_images_are_upright_in_every_loader(tmp_path, loader):
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        path = tmp_path / "set" / str(orientation % 2) / f"{orientation}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(noise(9, 14, 3), "JPEG", exif=exif))
    found = load(tmp_path / "set", train_split="train+test", loader=loader).train
    if loader == "stream":
        contents = [content for content, _ in found.source.read(range(8))]
        images = [decoding.fit(found, decoding.decode(found, c)) for c in contents]
    else:
        images = list(found.images)
    expected = []
    for path in (tmp_path / "set").glob("*/*.jpg"):
        with Image.open(path) as image:
            ImageOps.exif_transpose(image).save(tmp_path / "upright.png")
        expected.append(load_pixels(tmp_path / "upright.png"))
    assert sorted(map(bytes, images)) == sorted(map(bytes, expected))


def test_a_file_that_became_a_pipe_is_named(flat):
    source = load(flat, loader="stream").train.source
    path = source.describe(0)
    os.remove(path)
    os.mkfifo(path)
    (content, _), (whole, _) = source.read([0, 1])
    assert isinstance(content, BadImage) and "is not a file" in str(content)
    assert isinstance(whole, bytes)


def refused(root, **options) -> str:
    return refusal(load, root, **options)


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "val")])
def test_splits_in_classes_are_not_mixed(train, test, tmp_path):
    for name in ("cat", "dog"):
        draw_classes(tmp_path / name, 3, (train, test))
    assert "splits in its classes" in refused(tmp_path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("sett", "no directory 'sett' in .*'set'[?]"),
        ("ste/train", "no directory 'ste' in .*'set'[?]"),
        ("set/class 0/0.png", "is a file, expected a directory"),
        ("empty", "found none"),
        ("one", "found only 'class 0'"),
        ("x" * 300, "File name too long"),
        ("~nobody-here/x", "no directory '~nobody"),
    ],
)
def test_a_folder_that_cannot_be_had(path, words, flat, monkeypatch):
    monkeypatch.chdir(flat.parent)
    (flat.parent / "empty").mkdir()
    draw(flat.parent / "one" / "class 0" / "x.png")
    assert re.search(words, refused(path))


@pytest.mark.parametrize("name", ["", "class 3", "class 3/deep"])
def test_a_directory_that_cannot_be_read_is_named(flat, name, monkeypatch):
    (flat / "class 3" / "deep").mkdir()
    scan = os.scandir

    def refuse(path):
        if os.path.realpath(path) == os.path.realpath(flat / name):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refused(flat) == f"cannot read {flat / name}: Permission denied"


def test_the_image_size_is_needed(flat):
    assert "data.image_size is unset" in refused(flat, image_size=None)


def test_a_class_without_or_with_a_single_image_is_named(flat):
    (flat / "nothing").mkdir()
    assert "nothing holds no images" in refused(flat)
    (flat / "nothing" / "x.heic").touch()
    assert refused(flat).endswith("found 1 .heic")
    draw(flat / "nothing" / "x.png")
    assert "nothing holds one image" in refused(flat)


def test_a_class_of_one_split_only_is_named(split):
    draw(split / "val" / "class_2" / "x.png")
    assert "class 'class_2' is in 'val' but not in 'train'" in refused(split)
    draw(split / "train" / "class_2" / "x.png")
    draw(split / "train" / "novel" / "x.png")
    assert "class 'novel' is in 'train' but not in 'val'" in refused(split)


def test_one_split_alone_is_refused(tmp_path):
    draw_classes(tmp_path / "train", 1, CLASSES[:2])
    assert "train but no val, validation or test" in refused(tmp_path)
    (tmp_path / "train").rename(tmp_path / "test")
    assert "test but no train" in refused(tmp_path)


def test_an_unknown_split_gets_the_choices(split):
    assert refused(split, eval_split="zzz").endswith("has train, val")
    assert "did you mean 'train'?" in refused(split, train_split="trian")


def test_more_than_memory_holds_is_refused(flat, monkeypatch):
    needed = 50 * 8 * 8 * 3
    monkeypatch.setattr(decoding, "memory_bytes", lambda: 2 * needed - 1)
    assert "a smaller data.image_size" in refused(flat)
    monkeypatch.setattr(decoding, "memory_bytes", lambda: 2 * needed)
    load(flat)


def test_what_is_large_is_streamed(flat, monkeypatch):
    quarter = 50 * 8 * 8 * 3
    assert load(flat, loader="auto").train.images.shape == (40, 8, 8, 3)
    monkeypatch.setattr(decoding, "memory_bytes", lambda: 4 * quarter - 1)
    dataset = load(flat, loader="auto")
    assert isinstance(dataset.train, EncodedSplit) and len(dataset.train) == 40
    assert isinstance(load(flat, loader="stream").test, EncodedSplit)


def test_slices_are_samples_of_all_classes(flat):
    dataset = load(flat, train_split="train+test[:50%]", eval_split="test[50%:]")
    assert (len(dataset.train), len(dataset.test)) == (45, 5)
    assert len(set(load(flat, train_split="train[:50%]").train.labels)) > 5


@pytest.mark.parametrize("rule", [resize_crop_32, crop_resize])
def test_evaluation_images_are_cropped_by_the_rule_asked_for(split, rule):
    dataset = load(split, crop=rule.__name__)
    np.testing.assert_array_equal(dataset.train.images, load(split).train.images)
    paths = list((split / "val").glob("*/*.png"))
    assert len(paths) == len(dataset.test)
    for path in paths:
        exact = rule(open_image(path), 8).clip(0, 255)
        furthest = np.abs(dataset.test.images - exact).max((1, 2, 3))
        assert furthest.min() <= 0.5


def test_a_rule_for_images_that_are_not_resized_is_refused():
    line = refusal(load_dataset, "digits", crop="crop_resize", image_size=8)
    assert "data.crop is 'crop_resize', and images of" in line
