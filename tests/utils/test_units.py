"""Numbers are written as people write them."""

import pytest

from nfnet_jax.utils.units import duration, grouped, number, percent, with_prefix


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(0.0), "0"),
        (number(100.0), "100"),
        (number(3151.7), "3152"),
        (number(0.14716, 4), "0.1472"),
        (number(-0.5), "−0.5"),
        (number(1.5e-5), "1.5e−5"),
        (number(2e7), "2e7"),
        (number(float("nan")), "–"),
        (number(float("inf")), "∞"),
        (grouped(1234567), "1,234,567"),
        (with_prefix(2.02e11, "FLOP"), "202 GFLOP"),
        (with_prefix(5e15, "FLOP"), "5 PFLOP"),
        (with_prefix(12, "MAC"), "12 MAC"),
        (with_prefix(None, "MAC"), "–"),
        (percent(0.994429), "99.44 %"),
        (percent(None), "–"),
        (duration(38.84), "38.8 s"),
        (duration(59.99), "60.0 s"),
        (duration(61), "1 min 1 s"),
        (duration(3599.6), "1 h 0 min"),
        (duration(90000), "1 d 1 h"),
    ],
)
def test_numbers_are_as_people_write_them(written, expected):
    assert written == expected
