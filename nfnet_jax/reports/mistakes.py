"""Which classes a network confuses, and the images that it is surest to get wrong."""

import base64
import io

import numpy as np
from PIL import Image

from nfnet_jax.reports.elements import Child, Element, element, table
from nfnet_jax.reports.measured import Measured, Mistake, Tested
from nfnet_jax.reports.units import grouped, percent

_MOST_NUMBERS = 20
_MOST_PAIRS = 10
_LARGEST_SIDE = 96
_SHADES = 10


def confusion_matrix(measured: Measured, tested: Tested) -> Element:
    """Rows are classes, columns what their images were taken for: numbers of images,
    or for more than 20 classes a picture."""
    confusion = tested.confusion
    names = class_names(measured, tested)
    if len(names) > _MOST_NUMBERS:
        return _picture(confusion)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    head = [
        element("th", "class", scope="col"),
        *(element("th", name, scope="col") for name in names),
    ]
    rows: list[list[Child]] = [
        [names[i], *(_cell(i, j, confusion, shares) for j in range(len(names)))]
        for i in range(len(confusion))
    ]
    caption = "Images of each class (row) by the class they were taken for (column)"
    long = " long" if max(map(len, names)) > 3 else ""
    return table(head, rows, caption, class_=f"confusion{long}")


def _cell(i: int, j: int, confusion: np.ndarray, shares: np.ndarray) -> Element:
    # What is rare must be seen: the shade is by the root.
    shade = int(np.ceil(_SHADES * shares[i, j] ** 0.5))
    kind = "right" if i == j else "wrong"
    text = str(confusion[i, j]) if confusion[i, j] else "·"
    return element("td", text, class_=f"{kind} s{shade}", title=percent(shares[i, j]))


def _picture(confusion: np.ndarray) -> Element:
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    right = np.eye(*confusion.shape, dtype=np.bool_)[..., None]
    pixels = np.empty((*confusion.shape, 4), np.uint8)
    pixels[..., :3] = np.where(right, (0, 114, 178), (213, 94, 0))
    pixels[..., 3] = np.rint(255 * shares**0.5)
    classes, logits = confusion.shape
    return element(
        "figure",
        element(
            "img",
            src=_data_uri(Image.fromarray(pixels)),
            alt=f"Confusion matrix of {classes} classes (rows) and what their images "
            f"were taken for ({logits} columns); the largest confusions are in the "
            "table.",
            class_="matrix",
        ),
        element(
            "figcaption",
            "Classes from top to bottom, what they were taken for from left to right; "
            "blue is right, orange wrong.",
            class_="note",
        ),
    )


def confused_pairs(measured: Measured, tested: Tested) -> Element | str:
    """The confusions that take the most images."""
    confusion, names = tested.confusion, class_names(measured, tested)
    wrong = confusion * (1 - np.eye(*confusion.shape, dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    rows = [
        [
            f"{names[i]} → {names[j]}",
            grouped(int(wrong[i, j])),
            percent(wrong[i, j] / confusion[i].sum(), 1),
        ]
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]
    if not rows:
        return "No test image was taken for another class."
    caption = "Most frequent confusions"
    return table(["class → taken for", "images", "of the class"], rows, caption)


def gallery(measured: Measured, tested: Tested) -> Element | str:
    """The most confident mistakes as pictures."""
    mistakes, names = tested.mistakes, class_names(measured, tested)
    if not mistakes:
        return "There are none."
    if mistakes[0].image.shape[-1] not in (1, 3):
        channels = mistakes[0].image.shape[-1]
        return f"Images of {channels} channels cannot be shown."
    items = (_thumbnail(mistake, names) for mistake in mistakes)
    return element("ul", *items, class_="gallery")


def _thumbnail(mistake: Mistake, names: list[str]) -> Element:
    true, taken = names[mistake.label], names[mistake.guess]
    pixels = mistake.image
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    small = image.width < _LARGEST_SIDE
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return element(
        "li",
        element(
            "img",
            src=_data_uri(image),
            alt=f"Test image {mistake.position}: {true}, taken for {taken}",
            title=f"test image {mistake.position}",
            width=_LARGEST_SIDE,
            height=round(_LARGEST_SIDE * image.height / image.width),
            class_="pixels" if small else "photo",
        ),
        element("span", "says ", element("b", taken)),
        element("span", f"is {true}"),
        element("span", f"{percent(mistake.probability, 1)} sure", class_="note"),
    )


def class_names(measured: Measured, tested: Tested) -> list[str]:
    """One for each logit, of which a network may have more than there are classes."""
    names = list(measured.class_names)
    logits = tested.confusion.shape[1]
    return [*names, *(f"class {i}" for i in range(len(names), logits))]


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
