"""Charts of a page show what the numbers say."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from nfnet_jax.reports.figures import Line, Titles, line_chart

TITLES = Titles("Loss", "epoch", "nats")


def draw(*lines: Line, titles: Titles = TITLES):
    return line_chart(titles, lines, "chart")


def parse(chart):
    return ElementTree.fromstring(f"<svg>{chart.svg}</svg>")


def paths(chart, *kinds: str) -> list[np.ndarray]:
    """Coordinates [N, 2] of drawn paths whose style holds all `kinds`."""
    found = []
    for path in parse(chart).iter("path"):
        if all(kind in path.get("style", "") for kind in kinds):
            numbers = re.findall(r"-?[\d.]+", path.get("d"))
            found.append(np.asarray(numbers, float).reshape(-1, 2))
    return found


def curve(chart, colour: str = "c0") -> np.ndarray:
    return max(paths(chart, "fill: none", f"var(--{colour})"), key=len)


def labels(chart, anchor: str) -> dict[float, tuple[float, float]]:
    """Places (x, y) of the numbers along an axis: "end" for y, "middle" for x."""
    return {
        float(text.text.replace("−", "-")): (float(text.get("x")), float(text.get("y")))
        for text in parse(chart).iter("text")
        if f"text-anchor: {anchor}" in text.get("style")
        and re.fullmatch(r"−?[\d.]+", text.text)
    }


def vertical(chart) -> np.poly1d:
    """The height that a value has by the labels of the axis."""
    places = labels(chart, "end")
    line = np.poly1d(np.polyfit(list(places), [y for _, y in places.values()], 1))
    # Texts stand on a line below their middle.
    return line - 0.36 * 9.5


def test_a_line_is_where_its_values_are():
    x, y = np.arange(5.0), np.asarray([10.0, 11.0, 10.5, 12.0, 11.0])
    chart = draw(Line("test", x, y, 0))
    found = curve(chart)
    np.testing.assert_allclose(found[:, 1], vertical(chart)(y), atol=0.5)
    places = {value: x for value, (x, _) in labels(chart, "middle").items()}
    shown = np.polyval(np.polyfit(list(places), list(places.values()), 1), x)
    np.testing.assert_allclose(found[:, 0], shown, atol=0.5)
    assert chart.top < found[:, 1].min() and found[:, 1].max() < chart.bottom
    assert sum("c0" in use.get("style") for use in parse(chart).iter("use")) == 5


def test_many_values_are_means_within_their_extremes():
    rng = np.random.RandomState(0)
    x, y = np.arange(10_000.0), 3 + rng.standard_normal(10_000)
    y[5000] = 9.0
    titles = TITLES._replace(may_be_log=False)
    chart = draw(Line("a", x, y, 0), titles=titles)
    line, height = curve(chart), vertical(chart)
    assert len(line) == 120
    assert all("--c0" in use.get("style") for use in parse(chart).iter("use"))
    # The band reaches the highest and the lowest value, below the origin of <use>.
    band = max(paths(chart), key=len) + [0, chart.height]
    np.testing.assert_allclose(band[:, 1].min(), height(9), atol=0.5)
    np.testing.assert_allclose(band[:, 1].max(), height(y.min()), atol=0.5)
    groups = (x * 120 / 9999).astype(int).clip(max=119)
    expected = np.bincount(groups, y) / np.bincount(groups)
    np.testing.assert_allclose(line[:, 1], height(expected), atol=0.5)


def test_what_is_not_finite_is_left_out():
    y = np.asarray([1.0, np.nan, 3.0, np.inf])
    chart = draw(Line("a", np.arange(4.0), y, 0))
    assert len(curve(chart)) == 2
    assert draw(Line("a", np.arange(4.0), y * np.nan, 0)).svg == ""


def test_a_single_value_is_a_dot():
    chart = draw(Line("a", np.ones(1), np.full(1, 0.5), 0, "faint"))
    assert len(list(parse(chart).iter("use"))) == 1


def test_the_description_says_it_in_words():
    y = np.asarray([2.0, 0.5, 3.0, 1.0])
    assert draw(Line("training", np.arange(4.0), y, 0)).description == (
        "Loss: nats by epoch. training: 2 at 0, 1 at 3, lowest 0.5, highest 3."
    )


def test_what_is_under_the_pointer_is_read_out():
    chart = draw(
        Line("test", np.asarray([0.0, 2.0]), np.asarray([1.0, 0.25]), 0),
        Line("training", np.asarray([0.0, 1.0, 2.0]), np.asarray([3.0, 2.0, 1.0]), 1),
    )
    assert [reading.texts for reading in chart.readings] == [
        ("epoch 0", "test: 1", "training: 3"),
        ("epoch 1", "training: 2"),
        ("epoch 2", "test: 0.25", "training: 1"),
    ]
    # Their strips tile the panel, and their dots are on the lines.
    edges = [reading.left for reading in chart.readings]
    ends = np.add(edges, [reading.width for reading in chart.readings])
    np.testing.assert_allclose(ends[:-1], edges[1:])
    for name, colour, places in (("test", "c0", (0, 2)), ("training", "c1", (0, 1, 2))):
        dots = [
            (reading.x, dot)
            for reading in (chart.readings[place] for place in places)
            for dot, text in zip(reading.dots, reading.texts[1:], strict=True)
            if text.startswith(f"{name}:")
        ]
        np.testing.assert_allclose(dots, curve(chart, colour), atol=1e-3)
    for reading in chart.readings:
        assert 0 <= reading.text_left
        assert reading.text_left + reading.text_width <= chart.width


@pytest.mark.parametrize("in_chart", [True, False])
def test_lines_are_named_once(in_chart):
    lines = [Line(name, np.arange(3.0), np.ones(3), i) for i, name in enumerate("ab")]
    chart = draw(*lines, titles=TITLES._replace(named_in_chart=in_chart))
    texts = [text.text for text in parse(chart).iter("text")]
    assert ("a" in texts and "b" in texts) is in_chart
    assert [line.name for line in chart.legend] == ([] if in_chart else ["a", "b"])
    assert {"epoch", "nats"} <= set(texts)


def test_blocks_have_whole_numbers():
    line = Line("a", np.arange(3.0), np.ones(3), 0)
    assert 0.5 in labels(draw(line), "middle")
    shown = labels(draw(line, titles=TITLES._replace(counts=True)), "middle")
    assert list(shown) == [0, 1, 2]
