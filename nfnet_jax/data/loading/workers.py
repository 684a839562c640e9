"""What the workers of a stream compute, on the host."""

import dataclasses
from collections.abc import Callable

import numpy as np

from nfnet_jax.data.augment.resized_crop import host_crop_draws, random_resized_crop
from nfnet_jax.data.dataset import BadImage, EncodedSplit
from nfnet_jax.data.loading.decoding import decode, fit
from nfnet_jax.data.loading.shuffle import HostOrder
from nfnet_jax.utils.errors import UserError

_PIECE = 32


@dataclasses.dataclass(frozen=True)
class Piece:
    """What is told of the images of a piece.

    labels: of each, -1 where there is no example.
    bad: why they are broken, by index in the split.
    error: what ends the run; empty: nothing.
    """

    labels: list[int]
    bad: dict[int, str]
    error: str = ""


def center_crop(image: np.ndarray, split: EncodedSplit, position: int) -> np.ndarray:
    """The image resized and cropped by the rule of the split."""
    return fit(split, image)


def random_crop(
    image: np.ndarray, split: EncodedSplit, position: int, *, seed: int, flip: bool
) -> np.ndarray:
    """A random-resized crop; `flip` mirrors half of them."""
    draws = host_crop_draws(seed, position)
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
    def rows(self) -> int:
        """Images of a batch that are made here."""
        return self.size // self.processes

    @property
    def pieces(self) -> int:
        """How many pieces a batch has."""
        return -(-self.rows // _PIECE)

    @property
    def piece_rows(self) -> int:
        """Images of the largest piece."""
        return -(-self.rows // self.pieces)

    def positions(self, number: int) -> np.ndarray:
        """Positions of the piece `number`, int64, counted from the start."""
        batch, piece = divmod(number, self.pieces)
        first = batch * self.size + self.process * self.rows
        rows = np.array_split(np.arange(self.rows), self.pieces)[piece]
        return first + rows

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """Examples at the positions, int64; in an evaluation, -1 after the last."""
        if self.order is not None:
            images, members = np.divmod(positions, self.per_image)
            return self.order(images // self.repeats * self.per_image + members)
        return np.where(positions < len(self.split), positions, -1)

    def fill(self, number: int, images: np.ndarray) -> Piece:
        """Makes the piece `number` in the first of `images`, uint8 [`piece_rows`, …].

        Errors are told, not raised, so that they cross to the other process as they
        are.
        """
        try:
            return self._fill(number, images)
        except UserError as error:
            return Piece([], {}, str(error))

    def _fill(self, number: int, images: np.ndarray) -> Piece:
        positions = self.positions(number)
        indices = self.indices(positions)
        labels = [-1] * len(indices)
        bad: dict[int, str] = {}
        real = np.flatnonzero(indices >= 0)
        records = self.split.source.read(indices[real].tolist()) if len(real) else []
        images[: len(indices)] = 0
        for row, record in zip(real.tolist(), records, strict=True):
            found = self._decode(int(indices[row]), record, bad)
            if found is not None:
                image, labels[row] = found
                images[row] = self.crop(image, self.split, int(positions[row]))
        return Piece(labels, bad)

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
