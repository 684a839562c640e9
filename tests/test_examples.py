"""The examples run, and what they show is there."""

import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import optax
import pytest
from pages import blocks

import nfnet_jax

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def run(name: str, capsys) -> tuple[str, dict]:
    """Runs an example; returns its output and its variables."""
    variables = runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out, variables


def losses(text: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"loss (\S+)", text)]


def test_every_example_is_tested():
    tested = {"own_network.py", "features.py", "sharpness_aware.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def skip_gains(params) -> list[float]:
    flat = jax.tree_util.tree_leaves_with_path(params)
    return [float(leaf) for path, leaf in flat if path[-1].key == "skip_gain"]


@pytest.mark.promotes
def test_a_network_of_ones_own_learns_and_its_branches_open(capsys):
    """In the example, and with every optimizer that the pages show."""
    text, example = run("own_network.py", capsys)
    first, *_, last = losses(text)
    assert first == pytest.approx(2.3026, abs=1e-3) and last < 0.3
    opened = {"own_network.py": example["params"]}
    for block in blocks("python"):
        if "adaptive_gradient_clipping(" in block.text:
            shown = dict(example)
            exec(compile(block.text, block.page, "exec"), shown)
            opened[block.page] = trained(example, shown["optimizer"])
    assert len(opened) > 1
    for place, params in opened.items():
        gains = skip_gains(params)
        assert len(gains) == 2 and min(map(abs, gains)) > 0.05, (place, gains)


def trained(example, optimizer):
    """Parameters of its network after 60 steps on its data."""
    model, images, labels = (example[name] for name in ("model", "images", "labels"))
    params = model.init(jax.random.key(0), images[:1])["params"]

    @jax.jit
    def step(params, state, key):
        rows = jax.random.randint(key, (128,), 0, len(images))

        def loss(params):
            logits = model.apply({"params": params}, images[rows])
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, labels[rows]
            ).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    state = optimizer.init(params)
    for i in range(60):
        params, state = step(params, state, jax.random.key(i))
    return params


@pytest.mark.promotes
def test_features_can_be_classified(capsys):
    text, _ = run("features.py", capsys)
    first, *_, last = losses(text)
    assert first == pytest.approx(2.3026, abs=1e-3) and last < 0.1
    assert float(re.search(r"test accuracy (\S+)", text)[1]) > 0.85


@pytest.mark.promotes
def test_sam_finds_the_flattest_minimum(capsys):
    text, _ = run("sharpness_aware.py", capsys)
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
