"""Folders of images: both forms, any mode and size, and what is refused."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from nfnet_jax.data import decoding
from nfnet_jax.data.dataset import check_name, load_dataset
from nfnet_jax.data.images import open_image
from nfnet_jax.data.preprocess import crop_resize, resize_crop_32
from nfnet_jax.data.source import EncodedSplit
from nfnet_jax.errors import UserError

MODES = ("RGB", "L", "RGBA", "P", "CMYK", "LA", "1", "I;16", "RGB", "L")
CLASSES = tuple(f"class {i}" for i in range(10))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))


def draw(path, mode="RGB", size=(12, 9), seed=0):
    """Writes random pixels of `mode`, (width, height) of `size`."""
    random = np.random.RandomState(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        values = random.randint(0, 65536, size[::-1]).astype(np.uint16)
        image = Image.fromarray(values)
    else:
        values = random.randint(0, 256, (*size[::-1], 3)).astype(np.uint8)
        image = Image.fromarray(values).convert(mode)
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


def test_pixels_are_those_of_the_files(tmp_path):
    for name, colour in (("a", (250, 10, 30)), ("b", (0, 200, 0))):
        for part in ("train", "test"):
            path = tmp_path / part / name / "x.bmp"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (30, 17), colour).save(path)
    dataset = load(tmp_path)
    for split in (dataset.train, dataset.test):
        first, second = split.images[np.argsort(split.labels)]
        assert (first == (250, 10, 30)).all()
        assert (second == (0, 200, 0)).all()


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


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "plane"):
        for i in range(2):
            draw(tmp_path / name / f"{i}.png", seed=i)
    assert load(tmp_path).class_names == ("plane", "train")


def test_deeper_images_are_found_and_others_passed_over(split):
    draw(split / "train" / "class 0" / "deeper" / "x.JPG")
    (split / "train" / "class 0" / "Thumbs.db").write_text("")
    (split / "train" / "class 0" / "._0.png").write_text("")
    (split / "train" / ".cache").mkdir()
    assert len(load(split).train) == 10


def test_the_second_load_decodes_nothing_until_a_file_changes(flat, monkeypatch):
    opened = []
    decode = decoding.decode_image
    monkeypatch.setattr(
        decoding, "decode_image", lambda *image: (opened.append(1), decode(*image))[1]
    )
    first = load(flat)
    assert len(opened) == 50
    np.testing.assert_array_equal(load(flat).train.images, first.train.images)
    assert len(opened) == 50
    load(flat, image_size=6)
    assert len(opened) == 100
    draw(flat / "class 0" / "0.png", size=(40, 30))
    load(flat)
    assert len(opened) > 100


def refusal(root, **options) -> str:
    with pytest.raises(UserError) as error:
        load(root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_folder_names_its_neighbour(flat):
    line = refusal(flat.parent / "sett")
    assert "no directory 'sett'" in line and "'set'?" in line
    line = refusal(flat.parent / "ste" / "train")
    assert "no directory 'ste'" in line and "'set'?" in line


def test_a_file_is_no_folder(flat):
    assert "is a file" in refusal(flat / "class 0" / "0.png")


def test_the_image_size_is_needed(flat):
    assert "data.image_size is unset" in refusal(flat, image_size=None)


def test_classes_are_needed(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "found none" in refusal(tmp_path / "empty")
    draw(tmp_path / "one" / "class 0" / "x.png")
    assert "found only 'class 0'" in refusal(tmp_path / "one")


def test_a_class_without_images_is_named(flat):
    (flat / "nothing").mkdir()
    assert "nothing holds no images" in refusal(flat)


def test_one_image_cannot_be_split(flat):
    draw(flat / "few" / "x.png")
    assert "few holds one image" in refusal(flat)


def test_a_class_of_one_split_only_is_named(split):
    draw(split / "val" / "class_2" / "x.png")
    assert "class 'class_2' is in 'val' but not in 'train'" in refusal(split)
    draw(split / "train" / "class_2" / "x.png")
    draw(split / "train" / "novel" / "x.png")
    assert "class 'novel' is in 'train' but not in 'val'" in refusal(split)


def test_one_split_alone_is_refused(tmp_path):
    draw_classes(tmp_path / "train", 1, CLASSES[:2])
    assert "train but no val, validation or test" in refusal(tmp_path)
    (tmp_path / "train").rename(tmp_path / "test")
    assert "test but no train" in refusal(tmp_path)


def test_an_unknown_split_gets_the_choices(split):
    assert refusal(split, eval_split="zzz").endswith("has train, val")
    assert "did you mean 'train'?" in refusal(split, train_split="trian")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_broken_image_is_named(content, flat):
    path = flat / "class 3" / "0.png"
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    assert str(path) in refusal(flat)


def test_a_link_to_nowhere_is_named(flat):
    (flat / "class 3" / "lost.png").symlink_to(flat / "absent.png")
    assert "lost.png" in refusal(flat)


def test_more_than_memory_holds_is_refused(flat, monkeypatch):
    needed = 50 * 8 * 8 * 3
    monkeypatch.setattr(decoding, "memory_bytes", lambda: 2 * needed - 1)
    assert "a smaller data.image_size" in refusal(flat)
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


def test_names_of_folders(tmp_path):
    check_name("folder:~/pictures")
    with pytest.raises(UserError, match="folder:PATH"):
        check_name("folder:")
    with pytest.raises(UserError, match="did you mean 'folder:"):
        check_name(str(tmp_path))


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


@pytest.mark.parametrize(
    ("name", "options"), [("digits", {"image_size": 8}), ("digits", {})]
)
def test_a_rule_for_images_that_are_not_resized_is_refused(name, options):
    with pytest.raises(UserError, match="data.crop is 'crop_resize', and images of"):
        load_dataset(name, crop="crop_resize", **options)
