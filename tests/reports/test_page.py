"""A page is HTML, whatever names hold."""

import dataclasses
import json

import numpy as np
import pytest
from html_pages import SVG, parse, table

from nfnet_jax.config import base_config, to_json
from nfnet_jax.reports import measured
from nfnet_jax.reports.measured import Measured, Mistake
from nfnet_jax.reports.page import make_page
from nfnet_jax.reports.record import Record, read_records

NASTY = "<script>alert('x')</script> & \"q\" $a$ ]]> --> </style> {{ 7 }} é 漢"


@pytest.fixture
def record(tmp_path) -> Record:
    (tmp_path / "config.json").write_text(json.dumps(to_json(base_config())))
    lines = [{"step": i, "epoch": i, "test/loss": 1 / i} for i in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(f"{json.dumps(x)}\n" for x in lines)
    )
    return read_records([str(tmp_path)])[0]


def judged(classes: int, channels: int = 1) -> measured.Tested:
    confusion = np.ones((classes, classes), np.int64)
    mistake = Mistake(np.zeros((2, 2, channels), np.uint8), 3, 0, 1, 0.5)
    return measured.Tested(confusion, (mistake,))


def test_texts_and_attributes_hold_anything(record):
    runs = [dataclasses.replace(record, name=NASTY), record]
    found = Measured(class_names=(NASTY, "b"), step=3, tested=judged(2), notes=(NASTY,))
    html = parse(make_page(runs, [found, found]))
    assert not list(html.iter("script"))
    assert html.find(".//li/b").text == NASTY
    assert NASTY in html.findtext(".//p")
    assert NASTY in [cell.text for cell in html.iter("th")]
    assert any(NASTY in image.get("alt") for image in html.iter("img"))
    assert any(NASTY in svg.get("aria-label", "") for svg in html.iter(f"{SVG}svg"))
    (text,) = [t.text for t in html.iter(f"{SVG}text") if t.text.startswith(NASTY)][:1]
    assert text == f"{NASTY}, test: 1"


def test_what_is_no_character_is_replaced(record):
    run = dataclasses.replace(record, name="a\x00b\x1bc\x7f\ud800d\ufffe<b>")
    assert parse(make_page([run], [Measured()])).findtext(".//h1") == "a�b�c��d�<b>"


def test_the_same_run_gives_the_same_bytes(record):
    found = Measured(step=3, tested=judged(2))
    assert make_page([record], [found]) == make_page([record], [found])


def test_many_classes_are_a_picture(record):
    found = Measured(step=3, tested=judged(21))
    html = parse(make_page([record], [found]))
    (matrix,) = [i for i in html.iter("img") if i.get("class") == "matrix"]
    assert matrix.get("src").startswith("data:image/png;base64,")
    assert len(table(html, "Most frequent confusions")) == 11


def test_images_of_other_channels_are_not_shown(record):
    page = make_page([record], [Measured(step=3, tested=judged(2, channels=5))])
    assert "Images of 5 channels cannot be shown." in page
