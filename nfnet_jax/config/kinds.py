"""Kinds of config keys: the values that a key takes, and how a flag writes them."""

import contextlib
import dataclasses
import itertools
import re
from typing import Any, ClassVar

from nfnet_jax.utils.errors import UserError, nearest
from nfnet_jax.utils.files import scheme_of


@dataclasses.dataclass(frozen=True)
class Key:
    """Key of the config: its default, None if the key starts unset, and its meaning.

    Subclasses are the kinds of values; `type` is that of a value.
    """

    default: Any
    meaning: str
    type: ClassVar[type]

    @property
    def expected(self) -> str:
        """Valid values in words."""
        raise NotImplementedError

    def valid(self, value: Any) -> bool:
        """True if a `value` of the right type is one of `expected`."""
        return True

    def read(self, text: str) -> Any:
        """Value of a flag's `text`.

        Raises:
          ValueError: the text is no such value.
        """
        return self.type(text)

    def check(self, name: str, value: Any) -> None:
        """Raises UserError unless the key called `name` can have this `value`."""
        if value is None and self.default is not None:
            raise UserError(f"{name} is unset, expected {self.expected}")
        if value is None:
            return
        if not isinstance(value, self.type) or not self.valid(value):
            raise self.refusal(name, value)

    def refusal(self, name: str, value: Any) -> UserError:
        """Error of the key called `name`, which cannot have this `value`."""
        return UserError(
            f"{name} is {value!r}, expected {self.expected}{self.hint(str(value))}"
        )

    def hint(self, text: str) -> str:
        """Nearest valid value, `"; did you mean 'x'?"`, or an empty string."""
        return ""


@dataclasses.dataclass(frozen=True)
class Float(Key):
    """Finite number in an `interval` such as "[0, 1)"."""

    interval: str = "[0, inf)"
    type: ClassVar[type] = float
    _noun = "a number"

    @property
    def expected(self) -> str:
        low, high = self.interval[1:-1].split(", ")
        if high != "inf":
            return f"{self._noun} in {self.interval}"
        least = "above" if self.interval[0] == "(" else "of at least"
        return f"{self._noun} {least} {low}"

    def valid(self, value: float) -> bool:
        low, high = map(float, self.interval[1:-1].split(", "))
        above = value > low if self.interval[0] == "(" else value >= low
        below = value < high if self.interval[-1] == ")" else value <= high
        # Parameters and rates are float32.
        return above and below and value < 2.0**128


class Int(Float):
    """Whole number in an `interval` such as "[1, 16384)"."""

    type = int
    _noun = "a whole number"

    def read(self, text: str) -> int:
        return int(text, 0)

    def hint(self, text: str) -> str:
        """The whole number that "1e3", "64.0" or "007" stands for."""
        try:
            self.read(text)
        except ValueError:
            with contextlib.suppress(ValueError):
                if (number := float(text)).is_integer():
                    return f"; did you mean {number:.0f}?"
        return ""


class Switch(Key):
    """True or False."""

    type = bool
    expected = "true or false"

    def read(self, text: str) -> bool:
        words = {"true": True, "t": True, "1": True}
        words |= {"false": False, "f": False, "0": False}
        if text.lower() not in words:
            raise ValueError(f"{text!r} is neither true nor false")
        return words[text.lower()]


class Text(Key):
    """Any text that is not empty."""

    type = str
    expected = "a non-empty text"

    def valid(self, value: str) -> bool:
        return bool(value)


class Several(Text):
    """Texts of a flag that may be given several times; the default is ()."""


@dataclasses.dataclass(frozen=True)
class Choice(Key):
    """One of the texts `choices`."""

    choices: tuple[str, ...]
    type = str

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.choices)}"

    def valid(self, value: str) -> bool:
        return value in self.choices

    def hint(self, text: str) -> str:
        return nearest(text, self.choices)


class FileName(Text):
    """Name of a file or directory, without the directories above."""

    expected = "a plain name of letters, digits, '_', '-' and '.'"

    def valid(self, value: str) -> bool:
        return bool(re.fullmatch(r"\w[\w.\-]*", value))


class Path(Text):
    """Path of this machine, also behind "folder:", or a name."""

    expected = "a non-empty text, in which a path is of this machine: no gs://, ..."

    def valid(self, value: str) -> bool:
        return bool(value) and not scheme_of(value.removeprefix("folder:"))


class List(Key):
    """Tuple, which a flag writes as `read_list` reads it."""

    type = tuple

    def read(self, text: str) -> tuple[str | int | float, ...]:
        return read_list(text)


class Patterns(List):
    """Regular expressions, searched for in the paths of parameters."""

    expected = "a list of regular expressions such as ['bias$', 'gain$']"

    def valid(self, value: tuple) -> bool:
        return all(isinstance(pattern, str) and pattern for pattern in value)


class Shares(List):
    """Increasing shares of the run."""

    expected = "a list of increasing numbers in (0, 1) such as [0.5, 0.75]"

    def valid(self, value: tuple) -> bool:
        ends = (0, *value, 1)
        return all(
            isinstance(right, int | float) and left < right
            for left, right in itertools.pairwise(ends)
        )


_QUOTED = re.compile(
    r"""\s*(r?)('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")\s*(?=,|$)""", re.DOTALL
)
_CHARACTERS = r"\[\^?\]?(?:\\.|[^\\\]])*\]"
_TOKEN = re.compile(rf"\\.|{_CHARACTERS}|.", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def read_list(text: str) -> tuple[str | int | float, ...]:
    """Items of `a,b`, `[a, b]`, `("a", "b")` and the like; `[]` and `()` have none.

    Square or round brackets around everything belong to the notation, and so do quotes
    around an item. Commas inside other brackets do not separate: `a{1,2}` and
    `stages_[0,1]/` are one item each. Unquoted numbers become numbers. An item that is
    nothing but `[...]` must be quoted, as it would be taken for a list. In quotes, two
    backslashes are one, as Python and JSON write them.

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
    """Pieces between commas; None if the brackets do not pair up."""
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
