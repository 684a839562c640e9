"""The README and the pages of docs/, taken apart."""

import pathlib
import re
from typing import NamedTuple

REPOSITORY = pathlib.Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of code: "sh", "python", "text" (flags) or "math"."""

    page: str
    kind: str
    text: str


def blocks(*kinds: str) -> list[Block]:
    """The blocks of these kinds on all pages, from top to bottom."""
    found = [
        Block(page.relative_to(REPOSITORY).as_posix(), *match.groups())
        for page in PAGES
        for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]
    return [block for block in found if block.kind in kinds]


def commands(block: Block) -> list[str]:
    """The shell commands of a block as printed, each on a single line."""
    lines = block.text.replace("\\\n", "").splitlines()
    return [part for line in lines if line for part in line.split(" && ")]


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return _BLOCK.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}
