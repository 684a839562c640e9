"""Reports in a real browser, on a phone and a desk, by day and by night."""

import html
import itertools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from nfnet_jax.utils.figures import DARK, LIGHT

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--enable-logging=stderr", "--v=0"),
    *("--hide-scrollbars", "--force-device-scale-factor=1"),
)
PHONE, DESK, HEIGHT = 390, 1280, 900

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium found")

# A window is at least 500 pixels wide, a frame in it is not.
FRAMES = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>0</title>
<style>:root {{ color-scheme: light dark }} body {{ margin: 0; display: flex }}
iframe {{ border: 0; height: {height}px }}</style><body>{frames}
<script>onmessage = e => document.title += "," + e.data</script></body></html>
"""
TELL = """<script>
const root = document.documentElement, wide = [...document.querySelectorAll("body *")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5
    && !e.closest(".scroll, .tip")).map(e => e.outerHTML.slice(0, 99));
parent.postMessage(JSON.stringify({inner: innerWidth, scroll: root.scrollWidth, wide}),
  "*");
</script>"""


def browse(folder, pages, *flags: str) -> tuple[str, list[str]]:
    """Output of the browser, and the messages of its console, for each of `pages` in a
    frame of each width, side by side."""
    frames = "".join(
        f'<iframe src="{page.as_uri()}" style="width: {width}px"></iframe>'
        for page in pages
        for width in (PHONE, DESK)
    )
    wrapper = folder / "frames.html"
    wrapper.write_text(FRAMES.format(frames=frames, height=HEIGHT), encoding="utf-8")
    result = subprocess.run(
        [
            *(BROWSER, *FLAGS, f"--user-data-dir={folder}/profile"),
            f"--window-size={len(pages) * (PHONE + DESK)},{HEIGHT + 200}",
            *(*flags, wrapper.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout, re.findall("^.*CONSOLE.*$", result.stderr, re.MULTILINE)


def test_nothing_is_wider_than_the_screen(page, pair, tmp_path):
    copies = []
    for found in (page, pair):
        # The page itself lets no script run.
        policy = '<meta http-equiv="Content-Security-Policy"[^>]*>'
        text = re.sub(policy, "", found.text)
        assert text != found.text
        copies.append(tmp_path / f"copy{len(copies)}.html")
        copies[-1].write_text(text.replace("</body>", f"{TELL}</body>"), "utf-8")
    flags = ("--dump-dom", "--virtual-time-budget=2000")
    out, console = browse(tmp_path, copies, *flags)
    assert console == []
    title = html.unescape(re.search("<title>(.*?)</title>", out)[1])
    _, *told = json.loads(f"[{title}]")
    for found in told:
        assert found["scroll"] <= found["inner"] and found["wide"] == []
    assert sorted(found["inner"] for found in told) == [PHONE, PHONE, DESK, DESK]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_drawn_without_complaint(scheme, page, pair, tmp_path):
    picture = tmp_path / "page.png"
    _, console = browse(
        tmp_path,
        [page.path, pair.path],
        f"--screenshot={picture}",
        f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
    )
    assert console == []
    pixels = np.asarray(Image.open(picture).convert("RGB"))[:HEIGHT]
    colours = LIGHT if scheme == "light" else DARK
    edges = np.cumsum([0, PHONE, DESK, PHONE, DESK])
    for i, (left, right) in enumerate(itertools.pairwise(edges)):
        part = pixels[:, left:right].astype(int)
        # Its margin is the page; its cards, texts and curves cover the rest.
        expected = np.tile(rgb(colours["page"]), (HEIGHT, 1))
        np.testing.assert_array_equal(part[:, 4], expected)
        curves = ["c0"] if i < 2 else []
        for name in ("card", "text", "muted", "grid", *curves):
            found = (np.abs(part - rgb(colours[name])) <= 2).all(-1)
            assert found.sum() > 20, name


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
