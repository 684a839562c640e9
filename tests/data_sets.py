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


def write_jpeg_set(data_dir, train=200, test=50):
    """Prepares `tfds:jpegs`, JPEGs of mixed sizes; labels number the images."""
    import tensorflow_datasets as tfds

    sizes = np.random.RandomState(0).randint(20, 90, (train + test, 2))

    class Jpegs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "jpegs"
        pkg_dir_path = None

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(num_classes=train + test),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(0, train),
                "test": self._generate_examples(train, train + test),
            }

        def _generate_examples(self, start, stop):
            for i in range(start, stop):
                yield i, {"image": jpeg(*sizes[i], seed=i), "label": i}

    Jpegs(data_dir=str(data_dir), file_format="array_record").download_and_prepare()
