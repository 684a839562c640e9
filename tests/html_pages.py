"""HTML, as a strict parser understands it."""

import html5lib


def parse(text: str):
    """The tree of a document; raises where it breaks a rule of the syntax."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(text)
