"""Mistakes of the user, told in one line with the nearest valid choice."""

import difflib
import os
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user: commands print its one line and exit with code 2.

    The message names what was found, what was expected and the nearest valid choice.
    """


class Interrupted(Exception):
    """A run that was told to stop by the signal number `signal` has saved and ended."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


def one_line(text: str) -> str:
    r"""Returns `text` with its line ends as \n and \r: names of files may hold them."""
    return text.translate({ord("\n"): "\\n", ord("\r"): "\\r"})


def nearest(word: str, choices: Iterable[str], *, paths: bool = False) -> str:
    """Returns `"; did you mean 'x'?"` for the closest of `choices`, or an empty string.

    With `paths`, choices are dotted and their last component counts most, so that
    `lr` and `train.lr` are close to `optim.learning_rate`; a part of a name in the same
    section is as close as the same name in another.
    """
    likeness = _path_likeness if paths else _likeness
    scores = [(*likeness(_plain(word), _plain(choice)), choice) for choice in choices]
    best = max(scores, key=lambda score: score[:2], default=(0.0, 0.0, ""))
    return f"; did you mean {best[2]!r}?" if best[0] >= 0.55 else ""


def no_directory(path: str) -> str:
    """Returns "no such directory; did you mean 'x'?" for the path of none."""
    folder, name = os.path.split(os.path.abspath(os.path.expanduser(path)))
    beside = os.listdir(folder) if os.path.isdir(folder) else []
    return f"no such directory{nearest(name, beside)}"


def _plain(word: str) -> str:
    return str(word).lower().lstrip("-").replace("-", "_")


def _likeness(word: str, choice: str) -> tuple[float, float]:
    ratio = difflib.SequenceMatcher(None, word, choice).ratio()
    return ratio, ratio


def _path_likeness(word: str, choice: str) -> tuple[float, float]:
    """Likeness, and a second number that decides between equals."""
    whole = _likeness(word, choice)[0]
    section, _, name = word.rpartition(".")
    beside, _, other = choice.rpartition(".")
    parts = other.split("_")
    begins = len(name) > 1 and (other.startswith(name) or name in parts)
    initials = "".join(part[:1] for part in parts)
    if name in (other, initials) or (begins and section and section == beside):
        return 1.0, whole
    if begins or name in choice.split("."):
        return 0.9, whole
    last = _likeness(name, other)[0]
    return max(last, (last + whole) / 2), whole
