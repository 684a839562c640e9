"""The examples run, and what they show is there."""

import pathlib
import re
import subprocess
import sys

import pytest

import nfnet_jax

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def output(name: str) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(text: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"loss (\S+)", text)]


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "own_network.py",
        "features.py",
        "sharpness_aware.py",
    }


def test_a_network_of_ones_own_learns():
    first, *_, last = losses(output("own_network.py"))
    assert first == pytest.approx(2.3026, abs=1e-3) and last < 0.3


def test_features_can_be_classified():
    text = output("features.py")
    first, *_, last = losses(text)
    assert first == pytest.approx(2.3026, abs=1e-3) and last < 0.1
    assert float(re.search(r"test accuracy (\S+)", text)[1]) > 0.85


def test_sam_finds_the_flattest_minimum():
    text = output("sharpness_aware.py")
    assert max(losses(text)) < 1e-3
    plain, sam = map(float, re.findall(r"curvature (\S+)", text))
    assert plain == pytest.approx(4**2 + 0.25**2, rel=0.01)
    assert sam == pytest.approx(2, rel=0.05)


def test_public_names_are_listed_once_and_all_there():
    names = set(nfnet_jax.__all__) - {"__version__"}
    homes = [name for names in nfnet_jax._HOMES.values() for name in names]
    assert len(homes) == len(set(homes)) and set(homes) == names
    assert names <= set(dir(nfnet_jax))
    for name in names:
        assert getattr(nfnet_jax, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'WSConf'"):
        _ = nfnet_jax.WSConf


def test_the_citation_is_of_this_version():
    text = (EXAMPLES.parent / "CITATION.cff").read_text()
    assert f"\nversion: {nfnet_jax.__version__}\n" in text
