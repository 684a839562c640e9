"""Numbers as people write them."""

import math

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant ones, without an exponent where that is short."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def grouped(value: int | None) -> str:
    """1,234,567"""
    return "–" if value is None else f"{value:,}"


def with_prefix(value: float | None, unit: str, digits: int = 3) -> str:
    """1.23 GFLOP"""
    if value is None:
        return "–"
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{number(value / size, digits)} {prefix}{unit}"
    return f"{number(value, digits)} {unit}"


def seconds(value: float) -> str:
    """1.23 s, 1.23 ms or 1.23 µs."""
    for size, prefix in ((1, ""), (1e-3, "m")):
        if value >= size or not value:
            return f"{number(value / size)} {prefix}s"
    return f"{number(1e6 * value)} µs"


def percent(share: float | None, decimals: int = 2) -> str:
    """12.34 %"""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.{decimals}f} %"


def duration(seconds: float | None) -> str:
    """The two largest units: 3 h 12 min."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller, other in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {other}"
    raise AssertionError(seconds)
