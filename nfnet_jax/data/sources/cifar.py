"""CIFAR-10 and CIFAR-100 prepared for TFDS without TensorFlow.

The stock builders need TensorFlow to unpack the archive and to encode the images. These
write the same records under the same keys, so that the stock builders read them.
"""

import io
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from nfnet_jax.utils.download import RemoteFile, fetch, lock
from nfnet_jax.utils.errors import UserError

NAMES = ("cifar10", "cifar100")
_SIDE = 32
_IMAGE_BYTES = 3 * _SIDE * _SIDE
_ADVICE = ", or set data.dir to a directory that has the data set prepared"


def stock_archive(name: str) -> RemoteFile:
    """The archive that the stock TFDS builder of `cifar10` or `cifar100` names."""
    ((url, info),) = tfds.builder_cls(name).url_infos.items()
    return RemoteFile(url, info.checksum, int(info.size))


def prepare(
    name: str, data_dir: str | os.PathLike, *, archive: RemoteFile | None = None
) -> None:
    """Downloads `cifar10` or `cifar100` and writes it as array_record in `data_dir`.

    An archive already in `data_dir`/downloads is used once its checksum is right. Does
    nothing where the set is prepared.

    Raises:
      UserError: no network, wrong checksum, damaged archive, `data_dir` not writable.
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
            if not builder.is_prepared():
                path = fetch(archive, downloads, _ADVICE)
                builder.members = _read_archive(path, builder)
                _write(builder)
    except OSError as error:
        raise UserError(
            f"{name} cannot be prepared in {data_dir} ({error}); set data.dir to a"
            " writable directory"
        ) from error


def _write(builder: tfds.core.DatasetBuilder) -> None:
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # TFDS writes into a temporary directory and renames it when all is there.
    builder.download_and_prepare(download_config=config)


def _read_archive(path: Path, builder: tfds.core.DatasetBuilder) -> dict[str, bytes]:
    """Contents of the archive's data and label files, by their name."""
    layout = builder._cifar_info
    names = (*layout.train_files, *layout.test_files, *layout.label_files)
    wanted = {layout.prefix + name: name for name in names}
    members = {}
    try:
        # In one pass: seeking in a compressed archive reads it again from the start.
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.name in wanted and member.isfile():
                    file = archive.extractfile(member)
                    assert file is not None
                    members[wanted[member.name]] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); delete it") from error
    missing = [name for name in names if name not in members]
    if missing:
        raise UserError(f"{path} is damaged: it lacks {', '.join(missing)}; delete it")
    return members


def _builder_class(name: str) -> type[tfds.core.GeneratorBasedBuilder]:
    """The stock builder with the two steps replaced that need TensorFlow."""
    stock: Any = tfds.builder_cls(name)

    class Builder(stock, skip_registration=True):  # type: ignore[call-arg]
        name = stock.name
        # No package of its own: version and checksums are the stock builder's.
        pkg_dir_path = None
        members: dict[str, bytes]

        def _split_generators(self, dl_manager):
            layout = self._cifar_info
            for key, file in zip(layout.label_keys, layout.label_files, strict=True):
                lines = self.members[file].decode().split("\n")
                self.info.features[key].names = [line for line in lines if line]
            return {
                "train": self._generate_examples("train_", layout.train_files),
                "test": self._generate_examples("test_", layout.test_files),
            }

        def _generate_examples(self, split_prefix, filepaths):
            keys = self._cifar_info.label_keys
            index = 0
            for path in filepaths:
                for labels, image in _parse(self.members[path], len(keys)):
                    # Keys as in the stock builder: they decide the order on disk.
                    yield (
                        index,
                        {
                            "id": f"{split_prefix}{index:05d}",
                            "image": _png(image),
                            **dict(zip(keys, labels, strict=True)),
                        },
                    )
                    index += 1

    # dataset_info.json names the module that reads the set: the stock one does.
    Builder.__module__ = stock.__module__
    return Builder


def _parse(content: bytes, num_labels: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Labels and image uint8 [32, 32, 3] of every record of a binary file."""
    records = np.frombuffer(content, np.uint8).reshape(-1, num_labels + _IMAGE_BYTES)
    for record in records:
        planes = record[num_labels:].reshape(3, _SIDE, _SIDE)
        yield record[:num_labels].tolist(), planes.transpose(1, 2, 0)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()
