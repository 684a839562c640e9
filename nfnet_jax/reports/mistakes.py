"""Classes that a network confuses, and the images that it is surest to get wrong."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from nfnet_jax.reports.measured import Measured, Mistake, Tested
from nfnet_jax.utils.figures import COLOURS

_MOST_NUMBERS = 20
_MOST_PAIRS = 10
_LARGEST_SIDE = 96
_SHADES = 10


class Count(NamedTuple):
    """Images of one class that were taken for one: `share` of the class, in [0, 1].

    `shade` in 0..10 grows with the root of the share, so that the rare is seen.
    """

    images: int
    share: float
    shade: int


class Thumbnail(NamedTuple):
    """A mistake as PNG (`data:` URI) of `width` by `height` pixels on the page.

    `is_enlarged`: the image has fewer pixels.
    """

    position: int
    label: str
    guess: str
    probability: float
    uri: str
    width: int
    height: int
    is_enlarged: bool


class Mistakes(NamedTuple):
    """The mistakes of one network: by class, and the most confident ones.

    `counts` [classes][logits], or None where they are so many that `picture`, a
    `data:` URI of a PNG, shows them. `pairs`: a class, the one that images of it were
    taken for, their number and their share of the class. `gallery` is None for images
    of a number of `channels` that PNG has no colours for.
    """

    names: list[str]
    counts: list[list[Count]] | None
    picture: str | None
    pairs: list[tuple[str, str, int, float]]
    gallery: list[Thumbnail] | None
    channels: int


def summarize(measured: Measured, tested: Tested) -> Mistakes:
    """The mistakes of the network that was tested."""
    names, mistakes = list(measured.class_names), tested.mistakes
    # A network may have more logits than there are classes.
    names += [f"class {i}" for i in range(len(names), tested.confusion.shape[1])]
    channels = mistakes[0].image.shape[-1] if mistakes else 1
    few = len(names) <= _MOST_NUMBERS
    return Mistakes(
        names,
        _counts(tested.confusion) if few else None,
        None if few else _picture(tested.confusion),
        _pairs(tested.confusion, names),
        [_thumbnail(m, names) for m in mistakes] if channels in (1, 3) else None,
        channels,
    )


def _shares(confusion: np.ndarray) -> np.ndarray:
    return confusion / np.maximum(confusion.sum(1, keepdims=True), 1)


def _counts(confusion: np.ndarray) -> list[list[Count]]:
    shares = _shares(confusion)
    shades = np.ceil(_SHADES * shares**0.5).astype(int)
    columns = zip(confusion.tolist(), shares.tolist(), shades.tolist(), strict=True)
    return [[Count(*cell) for cell in zip(*row, strict=True)] for row in columns]


def _picture(confusion: np.ndarray) -> str:
    right = np.eye(*confusion.shape, dtype=np.bool_)[..., None]
    blue, orange = (tuple(bytes.fromhex(colour[1:])) for colour in COLOURS[:2])
    pixels = np.empty((*confusion.shape, 4), np.uint8)
    pixels[..., :3] = np.where(right, blue, orange)
    pixels[..., 3] = np.rint(255 * _shares(confusion) ** 0.5)
    return _data_uri(Image.fromarray(pixels))


def _pairs(
    confusion: np.ndarray, names: list[str]
) -> list[tuple[str, str, int, float]]:
    """The confusions that take the most images."""
    wrong = confusion * (1 - np.eye(*confusion.shape, dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    return [
        (names[i], names[j], int(wrong[i, j]), wrong[i, j] / confusion[i].sum())
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]


def _thumbnail(mistake: Mistake, names: list[str]) -> Thumbnail:
    pixels = mistake.image
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    is_enlarged = image.width < _LARGEST_SIDE
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return Thumbnail(
        mistake.position,
        names[mistake.label],
        names[mistake.guess],
        mistake.probability,
        _data_uri(image),
        _LARGEST_SIDE,
        round(_LARGEST_SIDE * image.height / image.width),
        is_enlarged,
    )


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
