"""Data sets renumbered by class names: each example keeps the name of its class."""

import itertools
import pickle

import numpy as np
import pytest
from PIL import Image

from nfnet_jax.data.class_names import relabel
from nfnet_jax.data.dataset import Split, contents
from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.sources.arrays import from_arrays

NAMES = ("ant", "bee", "cat")


@pytest.fixture(params=["arrays", "memory", "stream"])
def dataset(request, tmp_path, monkeypatch):
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (9, 6, 6, 3)).astype(np.uint8)
    if request.param == "arrays":
        arrays = images, np.arange(9) % 3
        return from_arrays({"train": arrays, "test": arrays}, class_names=NAMES)
    for i, image in enumerate(images):
        (tmp_path / "set" / NAMES[i % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "set" / NAMES[i % 3] / f"{i}.png")
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


def test_examples_keep_their_names_and_their_order(dataset):
    for names in itertools.permutations((*NAMES, "dog")):
        renumbered = relabel(dataset, names)
        assert renumbered.class_names == names
        assert examples(renumbered) == examples(dataset)


def test_it_is_known_as_the_same_data(dataset):
    for names in itertools.permutations(NAMES):
        assert contents(relabel(dataset, names)) == contents(dataset)


def test_a_class_that_is_not_known_is_refused(dataset):
    with pytest.raises(ValueError, match="'cat' is new"):
        relabel(dataset, NAMES[:2])
