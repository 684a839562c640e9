"""Fine-tuning: frozen parameters, the body's rate, starting from weights."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from data_sets import save_images
from tiny_run import tiny_config, write_config
from tiny_training import setup

from nfnet_jax import evaluate
from nfnet_jax import train as train_main
from nfnet_jax.config import base_config
from nfnet_jax.models.registry import create_model
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.groups import parameter_groups
from nfnet_jax.training import loop
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.data_spec import DataSpec, write_data_spec
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.pretrained import Pretrained, merge_pretrained
from nfnet_jax.training.state import init_state, init_variables
from nfnet_jax.training.workdir import create_workdir
from nfnet_jax.utils import runtime
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights import load as published

NAME = "nf_wrn_10_1"
SHAPE = (8, 8, 3)


def leaves(tree) -> dict[str, np.ndarray]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


def variables(classes=10, seed=0, name=NAME, **options):
    """A model and random parameters, none of them 0; compiles nothing."""
    model = create_model(name, classes, **options)
    random = np.random.RandomState(seed)
    shapes = jax.eval_shape(functools.partial(init_variables, model, 0, SHAPE))
    params, stats = jax.tree.map(
        lambda leaf: jnp.asarray(random.uniform(0.1, 0.5, leaf.shape), leaf.dtype),
        shapes,
    )
    return model, params, stats


# --- Freezing and the body's rate ---------------------------------------------------


def test_frozen_leaves_keep_every_bit_and_the_others_move():
    freeze = ("stem", "stages_0/", "stages_1/.*kernel$")
    options = {"model.name": "nf_wrn_16_1", "optim.freeze": freeze}
    _, step, state = setup(**options)
    random = np.random.RandomState(0)
    params = jax.tree.map(
        lambda leaf: jnp.float32(random.uniform(0.1, 0.5, leaf.shape)), state.params
    )
    # An update of +0 would turn these into +0.
    params["stem"]["bias"] = -jnp.zeros_like(params["stem"]["bias"])
    state = state.replace(params=params, ema_params=jax.tree.map(jnp.copy, params))
    before = jax.tree.map(np.copy, leaves(state.params))
    for _ in range(3):
        state, _ = step(state)
    moved = set()
    for tree in (state.params, state.ema_params):
        for name, leaf in leaves(tree).items():
            if leaf.tobytes() != before[name].tobytes():
                moved.add(name)
    assert moved
    for name in before:
        frozen = "stem" in name or "stages_0" in name
        frozen |= "stages_1" in name and "kernel" in name
        assert frozen == (name not in moved), name
    # Neither momentum nor anything else is kept for them.
    kept = [name for name in leaves(state.opt_state) if "stages_0" in name]
    assert not kept


def updates(params, grads, body_rate):
    """Three updates of unchanged parameters."""
    config = base_config()
    config.optim.weight_decay = 0.3
    config.optim.agc.clipping = 0.01
    config.optim.body_rate = body_rate
    optimizer = build_optimizer(
        config.optim,
        lambda step: 0.1 / (step + 1).astype(jnp.float32),
        parameter_groups(config.optim, params),
    )
    state, found = optimizer.init(params), []
    for _ in range(3):
        update, state = optimizer.update(grads, state, params)
        found.append(leaves(update))
    return found


def test_the_body_takes_exactly_its_share_of_every_step():
    _, params, _ = variables()
    grads = jax.tree.map(lambda leaf: jnp.cos(7 * leaf), params)
    whole, scaled = (updates(params, grads, rate) for rate in (1.0, 0.1))
    for one, other in zip(whole, scaled, strict=True):
        for name, update in one.items():
            factor = np.float32(1.0 if "classifier" in name else 0.1)
            np.testing.assert_array_equal(other[name], update * factor)
            assert np.any(update)


# --- Leaf by leaf -------------------------------------------------------------------


def start(others, params, stats, names="0123456789", theirs="0123456789"):
    given = Pretrained(others, (0,), (1,), class_names=tuple(theirs))
    return merge_pretrained(given, params, stats, "w", tuple(names))


def test_all_leaves_are_taken_as_copies():
    _, params, stats = variables()
    _, others, _ = variables(seed=1)
    taken, _, line = start(others, params, stats)
    for name, leaf in leaves(taken).items():
        np.testing.assert_array_equal(leaf, leaves(others)[name])
    assert "classifier is theirs" in line
    jax.tree.map(lambda leaf: leaf.delete(), others)
    assert np.isfinite(np.asarray(taken["head"]["classifier"]["kernel"])).all()


@pytest.mark.parametrize(
    ("classes", "names", "theirs", "words"),
    [
        (3, "abc", "0123456789", "'a', 'b', 'c' are new"),
        (3, "abc", None, "'a', 'b', 'c' are new"),
        (10, "012345678x", "0123456789", "'x' is new, '9' is missing"),
        (10, "0123456789", "", "what their classes are called is not known"),
        (10, "0123456789", "0012345678", "'0' is the name of several classes"),
    ],
)
def test_a_classifier_of_other_classes_is_new(classes, names, theirs, words):
    _, params, stats = variables(classes)
    _, others, _ = variables(seed=1)
    if theirs is None:
        del others["head"]["classifier"]
    theirs = "0123456789" if theirs is None else theirs
    taken, _, line = start(others, params, stats, names, theirs)
    for name, leaf in leaves(taken).items():
        source = params if "classifier" in name else others
        np.testing.assert_array_equal(leaf, leaves(source)[name])
    assert f"{len(leaves(params)) - 2} arrays; the classifier is new: {words}" in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["stem"].pop("kernel"), r"stem/kernel is missing"),
        (lambda p: p["stem"].update(kernel=jnp.ones((1, 2))), r"stem/kernel has shape"),
        (lambda p: p.update(more={"x": 1}), r"more/x is there, but not in this"),
        (lambda p: p.pop("stages_1"), r"stages_1/.* is missing \(and \d+ more such"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    _, params, stats = variables()
    others = jax.tree.map(lambda leaf: leaf, params)
    change(others)
    with pytest.raises(UserError, match=f"model.weights: w does not fit.*: {words}"):
        start(others, params, stats)


# --- Whole runs ---------------------------------------------------------------------


RUN = {
    "data.image_size": 8,
    "data.batch_size": 8,
    "data.eval_batch_size": 8,
    "train.steps": 4,
}
TUNED = {"data.name": "folder:ten", "optim.freeze": ("stem",), "optim.body_rate": 0.1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run of five classes, a folder of ten, and a config for it."""
    root = tmp_path_factory.mktemp("finetune")
    save_images(root / "ten", classes=10, images=4)
    source = str(root / "source")
    create_workdir(source, tiny_config(**RUN, **{"model.alpha": 0.3}))
    names = tuple("abcde")
    facts = DataSpec((0.2, 0.3, 0.4), (0.5, 0.6, 0.7), names, SHAPE)
    write_data_spec(source, facts)
    _, params, stats = variables(classes=5, seed=8)
    state = init_state(params, stats, optax.sgd(0.1))
    with Checkpoints(source) as checkpoints:
        checkpoints.save(state.replace(ema_params=variables(classes=5, seed=9)[1]))
    write_config(root / "finetune.py", RUN | TUNED)
    (root / "file.bin").write_bytes(b"no weights")
    (root / "empty").mkdir()
    return root


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("NFNET_JAX_CACHE", str(place / "cache"))
    monkeypatch.setattr(runtime, "enable_compilation_cache", lambda: None)
    return place


def command(*arguments):
    train_main.main(["train.py", "--config=finetune.py", *arguments])


def ema_params(workdir, shapes):
    with Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore({"ema_params": shapes}, whole=False)["ema_params"]


def test_a_run_starts_from_another_run(here, capsys):
    weights = "--config.model.weights=source"
    command(weights, "--workdir=tuned")
    output = capsys.readouterr().out
    assert "starting from source" in output and "the classifier is new" in output
    assert "frozen: 3 arrays" in output and "body_rate 0.1: " in output
    # config.json alone rebuilds the model, alpha included.
    config = json.loads((here / "tuned/config.json").read_text())
    assert config["model"]["alpha"] == 0.3
    facts = json.loads((here / "tuned/data.json").read_text())
    np.testing.assert_array_equal(facts["mean"], np.float32([0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(facts["std"], np.float32([0.5, 0.6, 0.7]))
    assert facts["class_names"] == list("0123456789")
    # Averages are taken, and what is frozen stays what they were.
    stem = {"stem": variables(classes=5, seed=9)[1]["stem"]}
    tuned = ema_params(here / "tuned", stem)
    jax.tree.map(np.testing.assert_array_equal, tuned, stem)

    # Evaluation normalizes as the source did.
    evaluate.main(["evaluate.py", "--workdir=tuned"])
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = json.loads((here / "tuned/result.json").read_text())
    assert scores["loss"] == pytest.approx(result["test_loss"], rel=1e-6)

    # The finished run is recognized though the weights are gone.
    (here / "source").rename(here / "moved")
    try:
        command(weights, "--workdir=tuned")
        assert "holds the finished run" in capsys.readouterr().out
    finally:
        (here / "moved").rename(here / "source")


def test_published_weights_bring_their_network_and_a_run_resumes_without(
    here, monkeypatch, capsys
):
    model, params, _ = variables(classes=7, seed=3, gamma="published")
    asked = []

    def load(name, weights, **overrides):
        asked.append((name, weights, overrides))
        return model, params

    monkeypatch.setattr(published, "load_pretrained", load)
    arguments = [
        "--config.model.weights=somewhere",
        "--config.checkpoint.every_epochs=0.2",
        "--workdir=from_published",
    ]
    evaluation = Experiment.evaluate
    monkeypatch.setattr(Experiment, "evaluate", stop_instead)
    with pytest.raises(KeyboardInterrupt):
        command(*arguments, "--config.eval.every_epochs=1.5")
    assert asked == [(NAME, "somewhere", {"headless": True})]
    monkeypatch.setattr(Experiment, "evaluate", evaluation)
    monkeypatch.setattr(published, "load_pretrained", None)
    command(*arguments, "--config.eval.every_epochs=1.5")
    assert "continuing from step 3 of 4" in capsys.readouterr().out
    config = json.loads((here / "from_published/config.json").read_text())
    assert config["model"]["gamma"] == "published"
    facts = json.loads((here / "from_published/data.json").read_text())
    np.testing.assert_allclose(facts["mean"], (0.485, 0.456, 0.406), rtol=1e-6)


def stop_instead(experiment, state):
    raise KeyboardInterrupt


def test_weights_that_nobody_loaded_are_an_error(here, tmp_path):
    config = tiny_config(**RUN | TUNED, **{"model.weights": "given"})
    with pytest.raises(UserError, match="'given', which was not loaded"):
        loop.train(config, str(tmp_path / "run"))


MALFORMED = [
    (["model.weights="], ["model.weights is ''"]),
    (["model.weights=file.bin"], ["model.weights: ", "file.bin", "unknown format"]),
    (["model.weights=fil.bin"], ["fil.bin: no such file", "'file.bin'?"]),
    (["model.weights=nfnet_f9"], ["'nfnet_f9'", "did you mean 'nfnet_f"]),
    (["model.weights=empty"], ["model.weights: 'empty' holds no run"]),
    (["model.weights=sourc"], ["'sourc'"]),
    (["model.weights=source", "model.name=nf_wrn_16_1"], [f"is a run of {NAME!r}"]),
    (["model.weights=source", "data.name=digits"], ["1 channel(s)", "are for 3"]),
    (["model.weights=source", "model.skip_gain=false"], ["skip_gain is there"]),
    (["optim.freeze=('steem',)"], ["optim.freeze: 'steem' matches no", "'stem'?"]),
    (["optim.freeze=('*',)"], ["optim.freeze: '*' is not a regular"]),
    (["optim.freeze=('.',)"], ["freezes all", "expected some to train"]),
    (["optim.body_rate=0"], ["optim.body_rate is 0.0", "above 0"]),
]


@pytest.mark.parametrize(("values", "words"), MALFORMED, ids=lambda v: v[0][:40])
def test_malformed_invocations(values, words, here):
    with pytest.raises(UserError) as error:
        command(*[f"--config.{value}" for value in values], "--workdir=bad")
    for word in words:
        assert word in str(error.value)
    assert not (here / "bad").exists()
