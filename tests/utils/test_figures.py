"""Figures show every value, name every line, and can be read by everyone."""

import itertools
import re

import numpy as np
import pytest

from nfnet_jax.utils import figures
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.figures import COLOURS, DARK, LIGHT


def channels(colour: str) -> np.ndarray:
    """Linear red, green and blue in [0, 1]."""
    values = np.asarray([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2."""
    weights = (0.2126, 0.7152, 0.0722)
    dark, light = sorted(float(channels(c) @ weights) for c in (one, other))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_seen(colours):
    """WCAG 2.2, AA: 4.5 for texts, 3 for lines."""
    for background in ("page", "card"):
        for text in ("text", "muted"):
            assert contrast(colours[text], colours[background]) >= 4.5
    for i in range(len(COLOURS)):
        assert contrast(colours[f"c{i}"], colours["card"]) >= 3


# Machado, Oliveira, Fernandes 2009: what an eye without one kind of cone sees.
CONES = {
    "all cones": np.eye(3),
    "no long": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no middle": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB."""
    to_xyz = [
        [0.4124, 0.3576, 0.1805],
        [0.2126, 0.7152, 0.0722],
        [0.0193, 0.1192, 0.9505],
    ]
    x, y, z = np.cbrt(to_xyz @ np.clip(rgb, 1e-3, 1) / [0.9505, 1, 1.089])
    return np.asarray([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", CONES)
@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_the_first_three_lines_differ_for_colour_blind_readers(colours, cones):
    """Distances in L*a*b*, of which 2.3 is just noticeable."""
    seen = [lab(CONES[cones] @ channels(colours[f"c{i}"])) for i in range(3)]
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(one - other) > 20


def panel_of(*lines: tuple[str, list[float]]):
    figure, ((panel,),) = figures.subplots()
    for name, values in lines:
        panel.plot(values, label=name)
    figures.fit_values(panel)
    return figure, panel


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.0],
        [5.0, 5.0],
        [-2.0, 3.0],
        [1e-9, 2e-9],
        [1e-4, 1.0, 30.0],
        [0.0, 1e6],
        [0.0, 1e-3, 1.0],
        [np.nan, 1.0, 2.0],
        [np.nan],
    ],
)
def test_every_value_is_on_the_axis_and_ticks_are_few(values):
    figure, panel = panel_of(("a", values))
    low, high = panel.get_ylim()
    found = [v for v in values if np.isfinite(v)]
    if panel.get_yscale() == "log":
        found = [v for v in found if v > 0]
    assert all(low <= value <= high for value in found) and low < high
    figure.draw_without_rendering()
    ticks = [tick for tick in panel.get_yticks() if low <= tick <= high]
    assert 2 <= len(ticks) <= 9


def test_an_axis_is_logarithmic_where_positive_values_differ_much():
    assert panel_of(("a", [1.0, 10.0]))[1].get_yscale() == "linear"
    assert panel_of(("a", [1.0, 20.0]))[1].get_yscale() == "log"
    assert panel_of(("a", [-1.0, 20.0]))[1].get_yscale() == "linear"
    _, panel = panel_of(("a", [0.001, 10.0]))
    places = panel.transData.transform([(0, 10.0**e) for e in range(-3, 2)])[:, 1]
    np.testing.assert_allclose(np.diff(places), np.diff(places)[0])


@pytest.mark.parametrize("ends", [(1, 1, 1), (0, 0, 0), (1, 0.99, 0), (0.5, 0.2, 0.52)])
def test_every_line_is_named_at_its_end_without_overlap(ends):
    names = [f"${name}$ & <i>" for name in "abc"]
    figure, panel = panel_of(
        *((name, [0.0, 1.0, end]) for name, end in zip(names, ends, strict=True))
    )
    figures.label_lines(panel)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel.texts]
    assert sorted(text.get_text() for text in panel.texts) == names
    colours = {line.get_label(): line.get_color() for line in panel.lines}
    for text, box in zip(panel.texts, boxes, strict=True):
        assert text.get_color() == colours[text.get_text()]
        assert box.x0 > panel.bbox.x1 and box.x1 <= figure.bbox.x1
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1
    for one, other in itertools.combinations(boxes, 2):
        assert one.y1 < other.y0 or other.y1 < one.y0
    # From the top, names are in the order of the ends.
    order = sorted(panel.texts, key=lambda text: text.xyann and text.xy[1])
    by_end = [ends[names.index(text.get_text())] for text in order]
    assert by_end == sorted(ends)


def test_an_svg_takes_its_colours_and_font_from_the_page():
    figure, panel = panel_of(("first & <b>", [1.0, 2.0]), ("漢", [2.0, 1.0]))
    figures.name_axes(panel, "epoch", "nats")
    figures.label_lines(panel)
    svg = figures.inline_svg(figure, "loss")
    assert not any(colour in svg for colour in LIGHT.values())
    for name in ("c0", "c1", "grid", "muted"):
        assert f"var(--{name})" in svg
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= LIGHT.keys() == DARK.keys()
    assert "font-family" not in svg and "<style" not in svg
    for text in ("epoch", "nats", "first &amp; &lt;b&gt;", "漢"):
        assert f">{text}</text>" in svg
    ids = re.findall(r'\bid="(.*?)"', svg)
    assert len(set(ids)) == len(ids) and all(i.startswith("loss-") for i in ids)
    used = re.findall(r'(?:url\(|href=")#(.*?)["\)]', svg)
    assert used and set(used) <= set(ids)


@pytest.mark.parametrize("extension", ["png", "svg", "pdf"])
def test_the_same_figure_is_the_same_file(extension, tmp_path):
    for name in "ab":
        figure, _ = panel_of(("a", [1.0, 2.0]))
        figures.legend_below(figure)
        figures.save(figure, tmp_path / f"{name}.{extension}")
    first, second = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert first == second and first


def test_files_that_cannot_be_written_are_named(tmp_path):
    figure, _ = panel_of(("a", [1.0]))
    with pytest.raises(UserError, match=r"gains.mp3.*\.png"):
        figures.save(figure, "gains.mp3")
    with pytest.raises(UserError, match="cannot write .*absent"):
        figures.save(figure, tmp_path / "absent" / "a.png")
