"""JSON that every reader takes: the standard has neither NaN nor infinity."""

import json
import math
from typing import Any


def dumps(value: Any, **options: Any) -> str:
    """Returns the text of `json.dumps`, with null for numbers that are not finite."""
    return json.dumps(strict(value), allow_nan=False, **options)


def loads(text: str | bytes) -> Any:
    """Returns `json.loads(text)`, with None for NaN and infinity of other writers."""
    return strict(json.loads(text))


def strict(value: Any) -> Any:
    """Returns what JSON can hold of `value`: None for numbers that are not finite.

    Tuples become lists.
    """
    if isinstance(value, dict):
        return {key: strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [strict(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
