"""What the workers of a stream compute; NumPy and Pillow only."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from nfnet_jax.data.decoding import decode, fit
from nfnet_jax.data.order import HostOrder
from nfnet_jax.data.random_crop import crop_draws, random_resized_crop
from nfnet_jax.data.source import BadImage, EncodedSplit
from nfnet_jax.errors import UserError

_PIECE = 64


def center_crop(image: np.ndarray, split: EncodedSplit, position: int) -> np.ndarray:
    """The image resized and cropped by the rule of the split."""
    return fit(split, image)


def random_crop(
    image: np.ndarray, split: EncodedSplit, position: int, *, seed: int, flip: bool
) -> np.ndarray:
    """A random-resized crop; `flip` mirrors half of them."""
    draws = crop_draws(seed, position)
    return random_resized_crop(image, split.image_shape[0], draws, flip)


@dataclasses.dataclass(frozen=True)
class HostBatches:
    """The batches of a split, in pieces that workers decode side by side.

    size: images drawn for a batch on all processes together.
    crop: `crop(image, split, position)` -> uint8 of the split's `image_shape`.
    order: of training; None for evaluation, one pass in the order of the split.
    repeats: how often the same examples are drawn in a row.
    per_image: how many are drawn for one image of the batch.
    allowed_bad: so many broken images in a row are replaced by those that follow them;
      in an evaluation none is.
    process, processes: which rows of each batch are made here.
    """

    split: EncodedSplit
    size: int
    crop: Callable[[np.ndarray, EncodedSplit, int], np.ndarray]
    order: HostOrder | None = None
    repeats: int = 1
    per_image: int = 1
    allowed_bad: int = 0
    process: int = 0
    processes: int = 1

    def of_process(self, process: int, processes: int) -> "HostBatches":
        """The same batches, for the rows of one of several processes."""
        return dataclasses.replace(self, process=process, processes=processes)

    @property
    def _rows(self) -> int:
        return self.size // self.processes

    @property
    def pieces(self) -> int:
        """How many pieces a batch has."""
        return -(-self._rows // _PIECE)

    def positions(self, number: int) -> np.ndarray:
        """Positions of the piece `number`, int64, counted from the start."""
        batch, piece = divmod(number, self.pieces)
        first = batch * self.size + self.process * self._rows
        rows = np.array_split(np.arange(self._rows), self.pieces)[piece]
        return first + rows

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """Examples at the positions, int64; in an evaluation, -1 after the last."""
        if self.order is not None:
            images, members = np.divmod(positions, self.per_image)
            return self.order(images // self.repeats * self.per_image + members)
        return np.where(positions < len(self.split), positions, -1)

    def piece(self, number: int) -> dict[str, Any]:
        """`images`, `labels`, the indices and reasons of `bad` images, an `error`.

        Errors are told, not raised, so that they cross to the other process as they
        are.
        """
        try:
            return self._piece(number) | {"error": ""}
        except UserError as error:
            return {"images": None, "labels": None, "bad": [], "error": str(error)}

    def _piece(self, number: int) -> dict[str, Any]:
        positions = self.positions(number)
        indices = self.indices(positions)
        images = np.zeros((len(indices), *self.split.image_shape), np.uint8)
        labels = np.full(len(indices), -1, np.int32)
        bad: dict[int, str] = {}
        real = np.flatnonzero(indices >= 0)
        records = self.split.source.read(indices[real].tolist()) if len(real) else []
        for row, record in zip(real, records, strict=True):
            found = self._decode(int(indices[row]), record, bad)
            if found is not None:
                image, labels[row] = found
                images[row] = self.crop(image, self.split, int(positions[row]))
        return {"images": images, "labels": labels, "bad": list(bad.items())}

    def _decode(self, index, record, bad) -> tuple[np.ndarray, int] | None:
        """Pixels and label of an example, or of the next one that is not broken."""
        while True:
            encoded, label = record
            try:
                return decode(self.split, encoded), label
            except BadImage as error:
                bad[index] = str(error)
            if self.order is None or len(bad) > self.allowed_bad:
                return None
            index = (index + 1) % len(self.split)
            (record,) = self.split.source.read([index])
