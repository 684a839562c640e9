"""Charts are what the numbers say."""

import re

import numpy as np
import pytest

from nfnet_jax.reports.axis import Axis, axis_from_zero, round_axis
from nfnet_jax.reports.chart import Line, Titles, line_chart

TITLES = Titles("Loss", "epoch", "nats")


def path(figure, kind: str) -> np.ndarray:
    """Coordinates [N, 2] of the drawn path of that class."""
    (found,) = [
        part.get("d")
        for part in figure.iterfind("svg/path")
        if kind in part.get("class").split()
    ]
    numbers = re.findall(r"-?[\d.]+", found)
    return np.asarray(numbers, float).reshape(-1, 2)


def labels(figure) -> list[str]:
    return [text.text for text in figure.iterfind("svg/text")]


def linear(values, low, high, start, end) -> np.ndarray:
    return np.interp(values, (low, high), (start, end))


def test_a_line_is_where_its_values_are():
    x, y = np.arange(5.0), np.asarray([10.0, 11.0, 10.5, 12.0, 11.0])
    figure = line_chart(TITLES, [Line("test", x, y, 0)])
    found = path(figure, "line")
    # 0 to 4 over 46 to 386 pixels; y upward, at one scale.
    np.testing.assert_allclose(found[:, 0], 46 + x * 340 / 4, atol=0.05)
    slope, intercept = np.polyfit(y, found[:, 1], 1)
    np.testing.assert_allclose(found[:, 1], slope * y + intercept, atol=0.06)
    assert slope < 0 and found[:, 1].min() > 24 and found[:, 1].max() < 198
    # Labels stand where their values would be.
    for text in figure.iterfind("svg/text"):
        if text.get("class") == "end" and text.text != "epoch":
            at = float(text.get("y")) - 4
            assert at == pytest.approx(slope * float(text.text) + intercept, abs=0.3)
    assert len(figure.findall("svg/circle")) == 5


def test_many_values_are_means_within_their_extremes():
    rng = np.random.RandomState(0)
    x, y = np.arange(10_000.0), 3 + rng.standard_normal(10_000)
    y[5000] = 9.0
    figure = line_chart(TITLES._replace(may_be_log=False), [Line("a", x, y, 0)])
    line, band = path(figure, "line"), path(figure, "band")
    assert len(line) == 120 and len(band) == 240
    assert not figure.findall("svg/circle")
    # The band reaches the highest and the lowest value, on the scale of the labels.
    ticks = {
        float(text.text.replace("−", "-")): float(text.get("y")) - 4
        for text in figure.iterfind("svg/text")
        if text.get("class") == "end" and text.text != "epoch"
    }
    slope, intercept = np.polyfit(list(ticks), list(ticks.values()), 1)
    np.testing.assert_allclose(band[:, 1].min(), slope * 9 + intercept, atol=0.2)
    np.testing.assert_allclose(band[:, 1].max(), slope * y.min() + intercept, atol=0.2)
    expected = np.bincount((x * 120 / 9999).astype(int).clip(max=119), y)
    expected /= np.bincount((x * 120 / 9999).astype(int).clip(max=119))
    np.testing.assert_allclose(line[:, 1], slope * expected + intercept, atol=0.2)


def test_what_is_not_finite_is_left_out():
    y = np.asarray([1.0, np.nan, 3.0, np.inf])
    figure = line_chart(TITLES, [Line("a", np.arange(4.0), y, 0)])
    assert len(path(figure, "line")) == 2
    nothing = line_chart(TITLES, [Line("a", np.arange(4.0), y * np.nan, 0)])
    assert nothing.find("svg") is None and nothing.find("p").text


def test_a_single_value_is_a_dot():
    figure = line_chart(TITLES, [Line("a", np.ones(1), np.full(1, 0.5), 0, "faint")])
    assert len(figure.findall("svg/circle")) == 1


def test_the_description_says_it_in_words():
    y = np.asarray([2.0, 0.5, 3.0, 1.0])
    svg = line_chart(TITLES, [Line("training", np.arange(4.0), y, 0)]).find("svg")
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == (
        "Loss: nats by epoch. training: 2 at 0, 1 at 3, lowest 0.5, highest 3."
    )


def test_what_is_under_the_pointer_is_read_out():
    lines = [
        Line("test", np.asarray([0.0, 2.0]), np.asarray([1.0, 0.25]), 0),
        Line("training", np.asarray([0.0, 1.0, 2.0]), np.asarray([3.0, 2.0, 1.0]), 1),
    ]
    groups = line_chart(TITLES, lines).findall("svg/g")
    texts = [[text.text for text in group.iter("text")] for group in groups]
    assert texts == [
        ["epoch 0", "test: 1", "training: 3"],
        ["epoch 1", "training: 2"],
        ["epoch 2", "test: 0.25", "training: 1"],
    ]
    strips = [group.find("rect") for group in groups]
    edges = [float(strip.get("x")) for strip in strips]
    widths = [float(strip.get("width")) for strip in strips]
    # They tile the plot.
    np.testing.assert_allclose(np.add(edges, widths), [*edges[1:], 392], atol=0.11)


def test_blocks_have_whole_numbers():
    line = Line("a", np.arange(3.0), np.ones(3), 0)
    assert "0.5" in labels(line_chart(TITLES, [line]))
    assert "0.5" not in labels(line_chart(TITLES._replace(counts=True), [line]))


@pytest.mark.parametrize(
    "values",
    [[0.0, 0.0], [5.0, 5.0], [-2.0, 3.0], [1e-9, 2e-9], [1e-4, 1.0, 30.0], [0.0, 1e6]],
)
def test_every_value_is_on_the_axis_and_ticks_are_few(values):
    values = np.asarray(values)
    axis = round_axis(values, 198.0, 24.0)
    places = [axis.place(value) for value in values.tolist()]
    assert all(24 <= place <= 198 for place in places)
    assert places == sorted(places, reverse=True)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 9
    assert all(axis.low <= t * (1 + 1e-9) and t <= axis.high for t in ticks)


def test_a_logarithmic_axis_has_equal_ratios_at_equal_distances():
    axis = round_axis(np.asarray([0.001, 10.0]), 0.0, 100.0)
    assert axis.log
    steps = np.diff([axis.place(10.0**e) for e in range(-3, 2)])
    np.testing.assert_allclose(steps, steps[0])
    assert axis.ticks() == pytest.approx([0.001, 0.01, 0.1, 1, 10])
    # What is off the axis, such as 0, is at its end.
    assert axis.place(0.0) == 0.0


def test_epochs_start_at_zero():
    assert axis_from_zero(np.asarray([3.0, 7.0]), 10, 20) == Axis(0, 7, 10, 20)
