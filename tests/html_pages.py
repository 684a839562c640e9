"""HTML, as a strict parser understands it."""

import html5lib

SVG = "{http://www.w3.org/2000/svg}"


def parse(text: str):
    """The tree of a document; raises where it breaks a rule of the syntax."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(text)
