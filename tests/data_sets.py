"""Small data sets on disk, and the line by which a wrong one is refused."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from nfnet_jax.utils.errors import UserError


def refusal(function, *arguments, **options) -> str:
    """Message of the UserError that the function raises: one line."""
    with pytest.raises(UserError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def noise(*shape, seed=0) -> np.ndarray:
    """Random pixels, uint8."""
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def encode(image, form="PNG", **options) -> bytes:
    """Content of a file of `form` with an image of Pillow or pixels."""
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def save_images(folder: pathlib.Path, *, classes: int, images: int) -> None:
    """Writes `images` PNG files of noise, 8x8, to each directory "0", "1", …"""
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for i in range(images):
            content = encode(noise(8, 8, 3, seed=label * images + i))
            (folder / str(label) / f"{i}.png").write_bytes(content)


def jpeg(height, width, seed):
    """Content of a JPEG file of a smooth random picture."""
    coarse = Image.fromarray(noise(4, 4, 3, seed=seed))
    return encode(coarse.resize((width, height)), "JPEG")


def write_tfds_set(data_dir, name, features, splits, **info):
    """Prepares version 1.2.3 of `tfds:NAME`; `splits` are lists of its examples."""
    import tensorflow_datasets as tfds

    set_name = name

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")
        name = set_name
        pkg_dir_path = None

        def _info(self):
            known = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=known, **info)

        def _split_generators(self, dl_manager):
            return {name: enumerate(examples) for name, examples in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Written(data_dir=str(data_dir), file_format="array_record").download_and_prepare()


def write_jpeg_set(data_dir):
    """Prepares `tfds:jpegs`, 200 + 50 JPEGs of mixed sizes; labels number them."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(num_classes=250),
    }
    sizes = np.random.RandomState(0).randint(20, 90, (250, 2))
    examples = [
        {"image": jpeg(*size, seed=i), "label": i} for i, size in enumerate(sizes)
    ]
    splits = {"train": examples[:200], "test": examples[200:]}
    write_tfds_set(data_dir, "jpegs", features, splits)
