"""Reads HTML by a strict parser."""

import html5lib

SVG = "{http://www.w3.org/2000/svg}"


def parse(text: str):
    """The tree of a document; raises where it breaks a rule of the syntax."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(text)


def texts(elements) -> list[str]:
    """All the text in each element."""
    return ["".join(part.itertext()) for part in elements]


def table(html, caption: str) -> dict[str, list[str]]:
    """Cells by the header of their row, in the one table with this caption."""
    (found,) = [t for t in html.iter("table") if t.findtext("caption") == caption]
    rows = [texts(row) for row in found.iter("tr")]
    return {row[0]: row[1:] for row in rows}
