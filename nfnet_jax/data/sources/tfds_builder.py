"""TFDS builders by name: found where the set is prepared, or prepared now."""

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters, naming, read_only_builder
from tensorflow_datasets.core import registered as registry

from nfnet_jax.data.sources import cifar
from nfnet_jax.utils.errors import UserError, nearest, no_directory
from nfnet_jax.utils.files import local_path


def find_or_prepare(
    name: str, data_dir: str | os.PathLike | None = None
) -> tfds.core.DatasetBuilder:
    """Builder of a TFDS set whose data are on disk, prepared now if they were not.

    `data_dir`, $TFDS_DATA_DIR and TFDS's default directory are searched in this order;
    a set is prepared in the first of them.

    Raises:
      UserError: the set is unknown, unreadable here, or could not be prepared.
    """
    directories = _search_directories(data_dir)
    builder = _find_prepared(name, directories)
    if builder is None:
        _prepare(name, directories[0], data_dir)
        builder = _find_prepared(name, directories[:1])
    if builder is None:
        raise UserError(
            f"{directories[0]} has a directory for tfds:{name} that is not a prepared"
            " data set; set data.dir to another directory"
        )
    return builder


def check_prepared(name: str, data_dir: str) -> None:
    """Raises UserError if the set is not prepared in `data_dir`."""
    if _find_prepared(name, _search_directories(data_dir)[:1]) is None:
        raise UserError(
            f"--data_dir is {data_dir!r}, which has no prepared tfds:{name}"
        )


def _search_directories(data_dir: str | os.PathLike | None) -> list[Path]:
    candidates = {
        "data.dir": data_dir,
        "TFDS_DATA_DIR": os.environ.get("TFDS_DATA_DIR"),
        "the default": "~/tensorflow_datasets",
    }
    paths = [
        local_path(path, name).absolute() for name, path in candidates.items() if path
    ]
    return list(dict.fromkeys(paths))


def _find_prepared(
    name: str, directories: Sequence[Path]
) -> tfds.core.DatasetBuilder | None:
    base, options = naming.parse_builder_name_kwargs(name)
    unreadable = None
    for directory in directories:
        try:
            # Read from the files alone, so that sets prepared by another version of
            # TFDS, or by code that is not installed here, are found too.
            builder = read_only_builder.builder_from_files(
                str(base), data_dir=os.fspath(directory), **options
            )
        except registry.DatasetNotFoundError:
            continue
        except OSError as error:
            raise UserError(
                f"tfds:{name} in {directory / str(base)} cannot be read: "
                f"{one_line(error)}"
            ) from error
        except Exception as error:
            raise UserError(
                f"tfds:{name} in {directory / str(base)} is damaged"
                f" ({one_line(error)}); prepare it in another directory and set"
                " data.dir to that"
            ) from error
        if builder.info.file_format in file_adapters.FileFormat.with_random_access():
            return builder
        unreadable = builder
    if unreadable is not None:
        raise UserError(
            f"tfds:{name} in {unreadable.data_path} is in the format"
            f" {unreadable.info.file_format.value}, which only TensorFlow reads;"
            " prepare it as array_record in another directory and set data.dir to that"
        )
    return None


def find(
    name: str, data_dir: str | os.PathLike | None = None
) -> tfds.core.DatasetBuilder | None:
    """The builder of `find_or_prepare`, or None if the set is not prepared."""
    return _find_prepared(name, _search_directories(data_dir))


def check_preparable(
    name: str, data_dir: str | os.PathLike | None = None
) -> tuple[tfds.core.DatasetBuilder, str]:
    """Builder that can prepare the set, and the start of its error messages; raises
    UserError if there is none."""
    directories = _search_directories(data_dir)
    absent = f"tfds:{name} is not prepared in {', '.join(map(str, directories))}"
    builder = _stock_builder(name, directories[0], absent)
    by_tensorflow = builder.name not in cifar.NAMES
    if by_tensorflow and importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"{absent}; preparing it once needs TensorFlow: pip install"
            " 'nfnet_jax[prepare]', or set data.dir to a directory that has it prepared"
        )
    # A data.dir that does not exist may be misspelt.
    if data_dir and not directories[0].is_dir():
        found = no_directory(os.fspath(data_dir))
        raise UserError(f"{absent}, and data.dir is '{data_dir}', {found}")
    return builder, absent


def _prepare(name: str, directory: Path, data_dir: str | os.PathLike | None) -> None:
    builder, absent = check_preparable(name, data_dir)
    if builder.name in cifar.NAMES:
        try:
            cifar.prepare(builder.name, directory)
        except UserError as error:
            raise UserError(f"{absent}, and {error}") from error
        return
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise UserError(
            f"{absent}, and preparing it failed: {one_line(error)}"
        ) from error


def _stock_builder(name: str, directory: Path, absent: str) -> tfds.core.DatasetBuilder:
    base, options = naming.parse_builder_name_kwargs(name)
    config = options.get("config")
    try:
        configs = list(tfds.builder_cls(str(base)).builder_configs)
        if config is None or config in configs:
            return tfds.builder(
                name, data_dir=os.fspath(directory), file_format="array_record"
            )
    except registry.DatasetNotFoundError as error:
        # tfds.list_builders would need TensorFlow.
        hint = nearest(str(base), registry.list_imported_builders())
        raise UserError(
            f"{absent}, and TFDS knows no set {str(base)!r}{hint}"
        ) from error
    except Exception as error:
        raise UserError(f"{absent}: {one_line(error)}") from error
    raise UserError(
        f"{absent}, and {base} has no configuration {config!r}, expected"
        f" {', '.join(configs[:8]) or 'none'}{', …' if len(configs) > 8 else ''}"
        f"{nearest(config, configs)}"
    )


def one_line(error: BaseException) -> str:
    """First line of an exception's message, without the prefix that TFDS adds."""
    text = re.sub(r"^Failed to construct dataset .*?}\": ", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
