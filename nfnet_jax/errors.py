"""What the user did wrong, in one line."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user: entry points print its one line and exit with code 2.

    The message names what was found, what was expected and the nearest valid choice.
    """


class Interrupted(Exception):
    """A run that was told to stop by the signal number `signal` has saved and ended."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


def nearest(word: str, choices: Iterable[str], *, paths: bool = False) -> str:
    """`"; did you mean 'x'?"` for the closest of `choices`, or an empty string.

    With `paths`, choices are dotted and their last component counts most, so that
    `lr` and `train.lr` are close to `optim.learning_rate`.
    """
    likeness = _path_likeness if paths else _likeness
    scores = [(*likeness(_plain(word), _plain(choice)), choice) for choice in choices]
    best = max(scores, key=lambda score: score[:2], default=(0.0, 0.0, ""))
    return f"; did you mean {best[2]!r}?" if best[0] >= 0.55 else ""


def _plain(word: str) -> str:
    return str(word).lower().lstrip("-").replace("-", "_")


def _likeness(word: str, choice: str) -> tuple[float, float]:
    ratio = difflib.SequenceMatcher(None, word, choice).ratio()
    return ratio, ratio


def _path_likeness(word: str, choice: str) -> tuple[float, float]:
    """Likeness, and what decides between equals."""
    whole = _likeness(word, choice)[0]
    name, other = word.rpartition(".")[2], choice.rpartition(".")[2]
    parts = other.split("_")
    if name in (other, "".join(part[:1] for part in parts)):
        return 1.0, whole
    if name in choice.split("."):
        return 0.9, whole
    if len(name) > 1 and (other.startswith(name) or name in parts):
        return 0.9, whole
    last = _likeness(name, other)[0]
    return max(last, (last + whole) / 2), whole
