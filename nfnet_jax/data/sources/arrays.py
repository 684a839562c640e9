"""Data sets made of arrays in memory."""

from collections.abc import Mapping, Sequence

import numpy as np

from nfnet_jax.data.dataset import Dataset, Split
from nfnet_jax.data.sources.splits import select
from nfnet_jax.utils.errors import UserError

_MOST_CLASSES = 2**31


def from_arrays(
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    train_split: str = "train",
    eval_split: str = "test",
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """Makes a data set for `nfnet_jax.training.loop.train(..., dataset=...)`.

        from_arrays({"train": (images, labels)},
                    train_split="train[:90%]", eval_split="train[90%:]")

    Args:
      splits: images uint8 [N, H, W, C] and labels [N], whole numbers from 0, by name.
      train_split: examples to train on, by TFDS's syntax.
      eval_split: examples to evaluate on.
      class_names: one a class; None numbers the classes up to the highest label.
      name: name of the set in messages and results.

    Raises:
      UserError: arrays of other types or shapes, or a split that is not there.
    """
    checked = {key: _check(name, key, *pair) for key, pair in splits.items()}
    if len({images.shape[1:] for images, _ in checked.values()}) > 1:
        shapes = ", ".join(str(images.shape[1:]) for images, _ in checked.values())
        raise UserError(f"{name} has images of differing shapes: {shapes}")
    highest = max(labels.max(initial=0) for _, labels in checked.values())
    if class_names is None:
        class_names = [str(label) for label in range(highest + 1)]
    if highest >= len(class_names):
        raise UserError(
            f"{name} has the label {highest}, expected less than {len(class_names)}, "
            "the number of class names"
        )
    sizes = {key: len(labels) for key, (_, labels) in checked.items()}
    train, test = (
        _join(checked, select(spec, sizes, key, name))
        for key, spec in (("train_split", train_split), ("eval_split", eval_split))
    )
    return Dataset(name, train, test, tuple(map(str, class_names)))


def _check(
    name: str, key: str, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"images of {name}'s {key!r} are {images.dtype} {images.shape}, expected "
            "uint8 [N, H, W, C]"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(
            f"labels of {name}'s {key!r} are {labels.dtype} {labels.shape}, expected "
            f"whole numbers [{len(images)}]"
        )
    for label in (labels.min(initial=0), labels.max(initial=0)):
        if not 0 <= label < _MOST_CLASSES:
            raise UserError(
                f"{name}'s {key!r} has the label {label}, expected one in "
                f"[0, {_MOST_CLASSES})"
            )
    return images, labels.astype(np.int32)


def _join(
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]],
    selected: Sequence[tuple[str, np.ndarray]],
) -> Split:
    if len(selected) == 1 and len(selected[0][1]) == len(arrays[selected[0][0]][1]):
        return Split(*arrays[selected[0][0]])
    parts = [[array[rows] for array in arrays[key]] for key, rows in selected]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Split(images, labels)
