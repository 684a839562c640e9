"""CIFAR-10 and CIFAR-100 prepared for TFDS without TensorFlow.

TFDS's own builders need TensorFlow to unpack the archive and to encode the images. The
ones of this module write the same records under the same keys, in the same order.
"""

import io
import os
import sys
import tarfile
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from nfnet_jax.utils.download import RemoteFile, fetch, lock
from nfnet_jax.utils.errors import UserError

NAMES = ("cifar10", "cifar100")
_PLANES = (3, 32, 32)
_ADVICE = ", or set data.dir to a directory that has the data set prepared"


def stock_archive(name: str) -> RemoteFile:
    """The archive that TFDS's builder of `cifar10` or `cifar100` names."""
    ((url, info),) = tfds.builder_cls(name).url_infos.items()
    return RemoteFile(url, info.checksum, int(info.size))


def prepare(
    name: str, data_dir: str | os.PathLike, *, archive: RemoteFile | None = None
) -> None:
    """Downloads `cifar10` or `cifar100` and writes it as array_record in `data_dir`.

    An archive already in `data_dir`/downloads is used if its checksum is right. A set
    that is prepared is left alone.

    Raises:
      UserError: no network, wrong checksum, `data_dir` not writable.
    """
    archive = archive or stock_archive(name)
    downloads = Path(data_dir) / "downloads"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        # Processes that start together must not write the same files.
        with lock(downloads / f"{archive.name}.lock"):
            builder = _builder_class(name)(
                data_dir=os.fspath(data_dir), file_format="array_record"
            )
            if builder.is_prepared():
                return
            path = fetch(archive, downloads, _ADVICE)
            if not sys.stderr.isatty():
                tfds.disable_progress_bar()
            with tempfile.TemporaryDirectory(dir=downloads) as builder.folder:
                with tarfile.open(path) as files:
                    files.extractall(builder.folder, filter="data")
                # TFDS writes into a temporary directory and renames it when complete.
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
                )
    except OSError as error:
        raise UserError(
            f"{name} cannot be prepared in {data_dir} ({error}); set data.dir to a"
            " writable directory"
        ) from error


def _builder_class(name: str) -> type[tfds.core.GeneratorBasedBuilder]:
    """TFDS's builder, reading the files unpacked in `folder` without TensorFlow."""
    stock: Any = tfds.builder_cls(name)

    class Builder(stock, skip_registration=True):  # type: ignore[call-arg]
        name = stock.name
        # No package of its own: version and checksums are those of `stock`.
        pkg_dir_path = None
        folder: str

        def _split_generators(self, dl_manager):
            unpacked = types.SimpleNamespace(download_and_extract=lambda _: self.folder)
            return super()._split_generators(unpacked)

        def _generate_examples(self, split_prefix, filepaths):
            keys = self._cifar_info.label_keys
            content = b"".join(Path(path).read_bytes() for path in filepaths)
            records = np.frombuffer(content, np.uint8)
            records = records.reshape(-1, len(keys) + np.prod(_PLANES))
            for index, record in enumerate(records):
                labels, planes = np.split(record, [len(keys)])
                image = encode_png(planes.reshape(_PLANES).transpose(1, 2, 0))
                example = {"id": f"{split_prefix}{index:05d}", "image": image}
                # The key, `index`, decides the order on disk: it is that of `stock`.
                yield index, example | dict(zip(keys, labels.tolist(), strict=True))

    # dataset_info.json names the module that reads the set: that of `stock`.
    Builder.__module__ = stock.__module__
    return Builder


def encode_png(image: np.ndarray) -> bytes:
    """Content of a PNG file with the pixels uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()
