"""Names of classes: from files, of ImageNet, matched, and data sets renumbered."""

import itertools
import pickle
import unicodedata

import numpy as np
import pytest
from data_sets import encode, noise, refusal

from nfnet_jax.data.class_names import (
    imagenet_class_names,
    match_classes,
    missing_classes,
    read_class_names,
    relabel,
)
from nfnet_jax.data.dataset import Split, contents
from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.sources.arrays import from_arrays


def test_a_line_is_a_name(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("tench, Tinca tinca\r\n goldfish\nKöter\n", encoding="utf-8")
    assert read_class_names(path) == ("tench, Tinca tinca", "goldfish", "Köter")
    path.write_bytes(b"\xef\xbb\xbfa\x0cb\nd\x1ee\n")
    assert read_class_names(path) == ("a\x0cb", "d\x1ee"), "mark and controls"


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"a\n\nb\n", "line 2 is empty"), (b"\xff\xfe", "UTF-8")],
)
def test_damaged_files(content, word, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    assert word in refusal(read_class_names, path)


def test_imagenet_is_in_the_order_of_its_synsets():
    names = imagenet_class_names()
    assert len(names) == 1000
    assert names[0] == "class 0 (n01440764)"  # tench
    assert names[281] == "class 281 (n02123045)"  # tabby cat
    assert names[999] == "class 999 (n15075141)"  # toilet tissue


KNOWN = ("blue", "café", "Red", "0")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_same_names_are_matched_in_any_order_and_normalization(form):
    for found in itertools.permutations(KNOWN):
        written = [unicodedata.normalize(form, name) for name in found]
        places = match_classes(written, KNOWN)
        assert [KNOWN[place] for place in places] == list(found)


def test_some_of_the_names_are_matched_where_they_may_be():
    for count in (1, 2, 3):
        for found in itertools.permutations(KNOWN, count):
            places = match_classes(found, KNOWN, whole=False)
            assert [KNOWN[place] for place in places] == list(found)
            missing = missing_classes(found, KNOWN)
            assert set(missing) == set(KNOWN) - set(found)
            with pytest.raises(ValueError, match="missing"):
                match_classes(found, KNOWN)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("found", "words"),
    [
        (("blue", "café", "red", "0"), ["'red' is new", "'Red' is missing; did you"]),
        ((*KNOWN, "green"), ["'green' is new"]),
        (tuple("abcdef"), ["'a', 'b', 'c' and 3 more are new", "and 1 more are miss"]),
        (("blue", "blue", "Red", "0"), ["'blue' is the name of several classes"]),
        (("café", "cafe\N{COMBINING ACUTE ACCENT}", "a", "b"), ["several classes"]),
    ],
)
def test_other_names_are_told(found, words, whole):
    with pytest.raises(ValueError) as error:
        match_classes(found, KNOWN, whole=whole)
    for word in words:
        assert word in str(error.value)


def test_names_that_repeat_are_matched_by_nothing_but_the_same_list():
    assert match_classes(("a", "a", "b"), ("a", "a", "b")) == [0, 1, 2]
    with pytest.raises(ValueError, match="'a' is the name of several"):
        match_classes(("b", "a"), ("a", "a", "b"), whole=False)


PETS = ("ant", "bee", "cat")


@pytest.fixture(params=["arrays", "memory", "stream"])
def dataset(request, tmp_path):
    images = noise(9, 6, 6, 3)
    if request.param == "arrays":
        arrays = images, np.arange(9) % 3
        return from_arrays({"train": arrays, "test": arrays}, class_names=PETS)
    for i, image in enumerate(images):
        (tmp_path / "set" / PETS[i % 3]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / PETS[i % 3] / f"{i}.png").write_bytes(encode(image))
    return load_dataset(f"folder:{tmp_path}/set", image_size=6, loader=request.param)


def examples(dataset):
    """Image and name of the class of every example, in their order."""
    found = []
    for split in (dataset.train, dataset.test):
        if isinstance(split, Split):
            records = zip(split.images, split.labels, strict=True)
        else:
            # Workers get it pickled.
            source = pickle.loads(pickle.dumps(split.source))
            records = source.read(range(len(source)))
        found += [
            (bytes(image), dataset.class_names[label]) for image, label in records
        ]
    return found


def test_examples_keep_their_names_and_their_order_and_are_the_same_data(dataset):
    for names in itertools.permutations((*PETS, "dog")):
        renumbered = relabel(dataset, names)
        assert renumbered.class_names == names
        assert examples(renumbered) == examples(dataset)
        assert contents(renumbered) == contents(dataset)
    with pytest.raises(ValueError, match="'cat' is new"):
        relabel(dataset, PETS[:2])
