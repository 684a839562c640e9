"""What is written is HTML, whatever names hold, and can be read."""

import re

import pytest
from html_pages import parse

from nfnet_jax.reports.elements import document, element, table
from nfnet_jax.reports.style import DARK, LIGHT, style_sheet
from nfnet_jax.reports.units import duration, grouped, number, percent, with_prefix

NASTY = "<script>alert('x')</script> & \"q\" ]]> --> </style> é 漢"


def page(*children):
    head = element("head", element("meta", charset="utf-8"), element("title", "t"))
    return parse(document(element("html", head, element("body", *children), lang="en")))


def test_texts_and_attributes_hold_anything():
    html = page(element("p", NASTY, element("b", NASTY), NASTY, title=NASTY))
    (paragraph,) = html.iter("p")
    assert "".join(paragraph.itertext()) == 3 * NASTY
    assert paragraph.get("title") == NASTY
    assert not list(html.iter("script"))


def test_what_is_no_character_is_replaced():
    html = page(element("p", "a\x00b\x1bc\x7f\ud800d\ufffe", title="\x01"))
    (paragraph,) = html.iter("p")
    assert paragraph.text == "a�b�c��d�" and paragraph.get("title") == "�"


def test_tables_have_headers():
    html = page(table(["", NASTY], [["a", "1"], ["b", element("i", "2")]], "Facts"))
    (made,) = html.iter("table")
    assert made.find("caption").text == "Facts"
    assert [th.get("scope") for th in made.iter("th")] == ["col", "col", "row", "row"]
    assert ["".join(td.itertext()) for td in made.iter("td")] == ["1", "2"]


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


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted(map(luminance, (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_seen(colours):
    """WCAG 2.2, AA: 4.5 for texts, 3 for lines."""
    for background in ("page", "card"):
        for text in ("text", "muted"):
            assert contrast(colours[text], colours[background]) >= 4.5
    for i in range(6):
        assert contrast(colours[f"c{i}"], colours["card"]) >= 3


def test_every_class_and_colour_of_the_style_sheet_is_known():
    sheet = style_sheet()
    used = set(re.findall(r"var\(--(\w+)\)", sheet))
    assert used - {"c"} <= LIGHT.keys() == DARK.keys()
    assert "http" not in sheet and "url(" not in sheet and "@import" not in sheet
