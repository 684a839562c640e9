"""HTML and SVG elements, escaped by the standard library as they are written."""

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

Element = ElementTree.Element
Child = Element | str

# Neither HTML nor XML has characters for these.
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe-￿]")


def element(tag: str, *children: Child, **attributes: str | float) -> Element:
    """`<tag attributes>children</tag>`; texts may hold anything.

    Attributes are as in HTML, but `class_` for class, and `_` for `-`.
    """
    made = Element(
        tag,
        {
            name.rstrip("_").replace("_", "-"): _text(v)
            for name, v in attributes.items()
        },
    )
    append(made, children)
    return made


def append(parent: Element, children: Iterable[Child]) -> None:
    """Adds `children` at the end."""
    for child in children:
        if isinstance(child, Element):
            parent.append(child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + _text(child)
        else:
            parent.text = (parent.text or "") + _text(child)


def table(
    head: Sequence[Child], rows: Iterable[Sequence[Child]], caption: str, **attributes
) -> Element:
    """Rows whose first cell is their header, in a box that scrolls by itself."""
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(cell if _is_cell(cell) else element("td", cell) for cell in row[1:]),
        )
        for row in rows
    ]
    heads = [
        cell if _is_cell(cell) else element("th", cell, scope="col") for cell in head
    ]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", *body),
        **attributes,
    )
    return element(
        "div", made, class_="scroll", tabindex="0", role="region", aria_label=caption
    )


def document(html: Element) -> str:
    """The text of the whole page."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(html, "unicode", method="html")


def _is_cell(cell: Child) -> bool:
    return isinstance(cell, Element) and cell.tag in ("td", "th")


def _text(value: str | float) -> str:
    # Coordinates: a tenth of a pixel is enough.
    text = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
    return _NO_TEXT.sub("\ufffd", text)
