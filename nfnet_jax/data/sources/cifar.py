"""CIFAR-10 and CIFAR-100 prepared for TFDS without TensorFlow.

TFDS's own builders need TensorFlow to unpack the archive and to encode the images. The
ones of this module write the same records under the same keys, in the same order.
"""

import io
import os
import sys
import tarfile
import zlib
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
            if builder.is_prepared():
                return
            path = fetch(archive, downloads, _ADVICE)
            builder.members = _read_archive(path, builder._cifar_info)
            if not sys.stderr.isatty():
                tfds.disable_progress_bar()
            # TFDS writes into a temporary directory and renames it when complete.
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    except OSError as error:
        raise UserError(
            f"{name} cannot be prepared in {data_dir} ({error}); set data.dir to a"
            " writable directory"
        ) from error


def _read_archive(path: Path, layout: Any) -> dict[str, bytes]:
    """Contents of the archive's data and label files, by name."""
    names = (*layout.train_files, *layout.test_files, *layout.label_files)
    wanted = {layout.prefix + name: name for name in names}
    members = {}
    try:
        # In one pass: seeking in a compressed archive reads it again from the start.
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.name in wanted and (file := archive.extractfile(member)):
                    members[wanted[member.name]] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); delete it") from error
    missing = [name for name in names if name not in members]
    if missing:
        raise UserError(f"{path} is damaged: it lacks {', '.join(missing)}; delete it")
    return members


def _builder_class(name: str) -> type[tfds.core.GeneratorBasedBuilder]:
    """TFDS's builder with replacements for the two steps that need TensorFlow."""
    stock: Any = tfds.builder_cls(name)

    class Builder(stock, skip_registration=True):  # type: ignore[call-arg]
        name = stock.name
        # No package of its own: version and checksums are those of `stock`.
        pkg_dir_path = None
        members: dict[str, bytes]

        def _split_generators(self, dl_manager):
            layout = self._cifar_info
            for key, file in zip(layout.label_keys, layout.label_files, strict=True):
                lines = self.members[file].decode().split("\n")
                self.info.features[key].names = [line for line in lines if line]
            return {
                "train": self._generate_examples("train", layout.train_files),
                "test": self._generate_examples("test", layout.test_files),
            }

        def _generate_examples(self, split, files):
            keys = self._cifar_info.label_keys
            content = b"".join(self.members[file] for file in files)
            records = np.frombuffer(content, np.uint8)
            records = records.reshape(-1, len(keys) + np.prod(_PLANES))
            for index, record in enumerate(records):
                labels, planes = np.split(record, [len(keys)])
                # The keys decide the order on disk: they are those of `stock`.
                yield (
                    index,
                    {
                        "id": f"{split}_{index:05d}",
                        "image": encode_png(planes.reshape(_PLANES).transpose(1, 2, 0)),
                        **dict(zip(keys, labels.tolist(), strict=True)),
                    },
                )

    # dataset_info.json names the module that reads the set: that of `stock`.
    Builder.__module__ = stock.__module__
    return Builder


def encode_png(image: np.ndarray) -> bytes:
    """Content of a PNG file with the pixels uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()
