"""TFDS set shaped like ImageNet: JPEGs of mixed sizes, each a class of its own."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def jpeg(height, width, seed):
    """Content of a JPEG file of a smooth random picture."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (4, 4, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_jpeg_set(data_dir, train=200, test=50):
    """Prepares `tfds:jpegs` with splits train and test; labels number the images."""
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
