"""Splits of any source by TFDS's syntax: `train[:90%]`, `train[10%:20%]+test`."""

from collections.abc import Mapping

import numpy as np

from nfnet_jax.utils.errors import UserError, nearest


def select(
    spec: str, sizes: Mapping[str, int], key: str, owner: str
) -> list[tuple[str, np.ndarray]]:
    """Names of the splits that `spec` selects, each with its rows, int64.

    `spec` is the value of the config key `data.KEY`, `sizes` are the examples of each
    split of the set called `owner`. Raises UserError if the syntax is another, a split
    unknown, or nothing selected.
    """
    parts = [(spec, slice(None))] if spec in sizes else _parse(spec, sizes, key, owner)
    selected = [(name, np.arange(sizes[name])[part]) for name, part in parts]
    if not any(len(rows) for _, rows in selected):
        raise UserError(f"data.{key} is {spec!r}, which holds no examples")
    return selected


def _parse(
    spec: str, sizes: Mapping[str, int], key: str, owner: str
) -> list[tuple[str, slice]]:
    # Imported here: plain names need not wait a second for TFDS.
    from tensorflow_datasets import core

    infos = {
        name: core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
        for name, size in sizes.items()
    }
    try:
        parts = core.ReadInstruction.from_spec(spec).to_absolute(infos)
    # TFDS adds notes and types of its own to what its parser raises.
    except Exception as error:
        known = list(sizes)
        for part in spec.split("+"):
            base = part.split("[")[0].strip()
            if base not in known:
                raise UserError(
                    f"data.{key} is {spec!r}, {owner} has {', '.join(known)}"
                    f"{nearest(base, known)}"
                ) from error
        raise UserError(
            f"data.{key} is {spec!r}, expected a split or a slice of one such as "
            f"{known[0]}[:90%]"
        ) from error
    return [(part.splitname, slice(part.from_, part.to)) for part in parts]
