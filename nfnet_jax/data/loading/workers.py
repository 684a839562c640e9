"""Pieces of the batches of a stream, decoded and cropped by its worker processes."""

import dataclasses
from collections.abc import Callable

import numpy as np

from nfnet_jax.data.augment.crops import host_crop_draws, random_resized_crop
from nfnet_jax.data.dataset import BadImage, EncodedSplit
from nfnet_jax.data.decoding import decode, fit
from nfnet_jax.data.loading.shuffle import HostFeistelShuffle, stream_index
from nfnet_jax.utils.errors import UserError

_PIECE = 32


@dataclasses.dataclass(frozen=True)
class Piece:
    """Labels and decoding errors of one piece of a batch.

    labels: one for each image, -1 where there is no example.
    bad: reasons of broken images by row of the split.
    error: the line that ends the run; empty if none does.
    """

    labels: list[int]
    bad: dict[int, str]
    error: str = ""


def center_crop(image: np.ndarray, split: EncodedSplit, draw_id: int) -> np.ndarray:
    """The image resized and cropped by the rule of the split."""
    return fit(split, image)


def random_crop(
    image: np.ndarray, split: EncodedSplit, draw_id: int, *, seed: int, flip: bool
) -> np.ndarray:
    """A random-resized crop; `flip` mirrors half of them."""
    draws = host_crop_draws(seed, draw_id)
    return random_resized_crop(image, split.image_shape[0], draws, flip)


@dataclasses.dataclass(frozen=True)
class HostBatches:
    """Batches of a split, in pieces that workers decode side by side.

    size: images drawn for a batch on all processes together.
    crop: `crop(image, split, draw_id)` -> uint8 of the split's `image_shape`.
    shuffle: of training; None for an evaluation, one pass in the order of the split.
    repeats: number of times that the same examples are drawn in a row.
    per_example: images drawn for one example of the batch.
    allowed_bad: so many broken images in a row are replaced by the rows after them; an
      evaluation replaces none.
    process, processes: selection of the rows of each batch that are made here.
    """

    split: EncodedSplit
    size: int
    crop: Callable[[np.ndarray, EncodedSplit, int], np.ndarray]
    shuffle: HostFeistelShuffle | None = None
    repeats: int = 1
    per_example: int = 1
    allowed_bad: int = 0
    process: int = 0
    processes: int = 1

    @property
    def local_size(self) -> int:
        """Images of a batch that are made here."""
        return self.size // self.processes

    @property
    def pieces(self) -> int:
        """Number of pieces of a batch."""
        return -(-self.local_size // _PIECE)

    @property
    def piece_size(self) -> int:
        """Images of the largest piece."""
        return -(-self.local_size // self.pieces)

    def draw_ids(self, piece_index: int) -> np.ndarray:
        """Draws of a piece, int64, counted from the start of training."""
        batch_index, piece = divmod(piece_index, self.pieces)
        first = batch_index * self.size + self.process * self.local_size
        return first + np.array_split(np.arange(self.local_size), self.pieces)[piece]

    def rows(self, draw_ids: np.ndarray) -> np.ndarray:
        """Rows of the split for some draws, int64; -1 after the end of it."""
        if self.shuffle is not None:
            return self.shuffle(stream_index(draw_ids, self.per_example, self.repeats))
        return np.where(draw_ids < len(self.split), draw_ids, -1)

    def fill(self, piece_index: int, images: np.ndarray) -> Piece:
        """Makes a piece in the first of `images`, uint8 [`piece_size`, …].

        Errors are returned, not raised: so they cross to the other process unchanged.
        """
        try:
            return self._fill(piece_index, images)
        except UserError as error:
            return Piece([], {}, str(error))

    def _fill(self, piece_index: int, images: np.ndarray) -> Piece:
        draw_ids = self.draw_ids(piece_index)
        rows = self.rows(draw_ids)
        labels = [-1] * len(rows)
        bad: dict[int, str] = {}
        real = np.flatnonzero(rows >= 0)
        records = self.split.source.read(rows[real].tolist()) if len(real) else []
        images[: len(rows)] = 0
        for i, record in zip(real.tolist(), records, strict=True):
            found = self._decode(int(rows[i]), record, bad)
            if found is not None:
                image, labels[i] = found
                images[i] = self.crop(image, self.split, int(draw_ids[i]))
        return Piece(labels, bad)

    def _decode(self, row, record, bad) -> tuple[np.ndarray, int] | None:
        """Pixels and label of a row, or of the next one that is not broken."""
        while True:
            encoded, label = record
            try:
                return decode(self.split, encoded), label
            except BadImage as error:
                bad[row] = str(error)
            if self.shuffle is None or len(bad) > self.allowed_bad:
                return None
            row = (row + 1) % len(self.split)
            (record,) = self.split.source.read([row])
