"""Lists as people write them on a command line."""

import re

_QUOTED = re.compile(
    r"""\s*(r?)('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")\s*(?=,|$)""", re.DOTALL
)
_CHARACTERS = r"\[\^?\]?(?:\\.|[^\\\]])*\]"
_TOKEN = re.compile(rf"\\.|{_CHARACTERS}|.", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def read_list(text: str) -> tuple[str | int | float, ...]:
    """The items of `a,b`, `[a, b]`, `("a", "b")` and the like; `[]` and `()` have none.

    Square or round brackets around everything belong to the notation, and so do quotes
    around an item. Commas separate items where they stand in no other brackets:
    `a{1,2}` and `stages_[0,1]/` are one item each. A number is one unless quoted. An
    item that is nothing but `[...]` must be quoted: it would be taken for a list. In
    quotes, two backslashes are one, as Python and JSON write it.

    Raises:
      ValueError: brackets or quotes that do not pair up, or an empty item.
    """
    text = text.strip()
    pieces = None
    if text[:1] + text[-1:] in ("[]", "()") and not text.startswith("(?"):
        pieces = _split(text[1:-1])
    if pieces is None and text:
        pieces = _split(text)
    if pieces is None:
        raise ValueError(f"{text!r} is no list")
    if not pieces[-1]:
        pieces.pop()
    return tuple(map(_item, pieces))


def _split(text: str) -> list[str] | None:
    """What stands between commas; None where the brackets do not pair up."""
    pieces, depth, position = [""], 0, 0
    while position < len(text):
        quoted = None if pieces[-1] else _QUOTED.match(text, position)
        found = quoted or _TOKEN.match(text, position)
        assert found
        token = found[0]
        position = found.end()
        if token == "," and not depth:
            pieces.append("")
            continue
        depth += (token in ("(", "{")) - (token in (")", "}"))
        if depth < 0 or token in ("[", "]"):
            return None
        pieces[-1] += token
    return None if depth else [piece.strip() for piece in pieces]


def _item(piece: str) -> str | int | float:
    if quoted := _QUOTED.fullmatch(piece):
        inside = quoted[2][1:-1]
        return inside if quoted[1] else re.sub(r"\\([\\'\"])", r"\1", inside)
    if not piece or re.search("['\"]", piece) or re.fullmatch(_CHARACTERS, piece):
        raise ValueError(f"{piece!r} is no item of a list")
    if _NUMBER.fullmatch(piece):
        return int(piece) if piece.lstrip("+-").isdecimal() else float(piece)
    return piece
