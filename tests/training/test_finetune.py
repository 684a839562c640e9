"""Fine-tuning: frozen parameters, the body's rate, starting from weights."""

import functools
import itertools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from tiny_training import experiment

from nfnet_jax import cli, evaluate
from nfnet_jax import train as train_main
from nfnet_jax.config import base_config, to_json
from nfnet_jax.data.dataset import Split
from nfnet_jax.models.registry import create_model
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.groups import describe_groups, parameter_groups
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
    random = np.random.RandomState(0)
    split = Split(
        images=random.randint(0, 256, (8, *SHAPE)).astype("uint8"),
        labels=np.arange(8, dtype="int32"),
    )
    run = experiment(
        split,
        DataSpec.of_shape(SHAPE, 10),
        **{
            "model.name": "nf_wrn_16_1",
            "data.batch_size": 4,
            "train.steps": 3,
            "optim.freeze": ("stem", "stages_0/", "stages_1/.*kernel$"),
        },
    )
    _, params, stats = variables(name="nf_wrn_16_1")
    # An update of +0 would turn these into +0.
    params["stem"]["bias"] = -jnp.zeros_like(params["stem"]["bias"])
    before = leaves(params)
    state = init_state(params, stats, run.optimizer)
    for host_batch in itertools.islice(run.train_batches.iterate(0), 3):
        state, _ = run.train_step(state, host_batch)
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


def updates(params, grads, **changes):
    config = base_config()
    config.optim.weight_decay = 0.3
    config.optim.agc.clipping = 0.01
    config.update_from_flattened_dict(changes)
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
    whole, scaled = updates(params, grads), updates(params, grads, **BODY)
    for one, other in zip(whole, scaled, strict=True):
        for name, update in one.items():
            factor = np.float32(1.0 if "classifier" in name else 0.1)
            np.testing.assert_array_equal(other[name], update * factor)
            assert np.any(update)


BODY = {"optim.body_rate": 0.1}


def test_frozen_parameters_get_no_decay_at_any_rate():
    _, params, _ = variables()
    grads = jax.tree.map(jnp.zeros_like, params)
    for changes in ({}, BODY):
        found = updates(params, grads, **{"optim.freeze": ("stages_",)}, **changes)
        for name, update in found[-1].items():
            assert not (np.any(update) and "stages_" in name)
        assert any(np.any(update) for update in found[-1].values())


def test_the_table_counts_what_is_frozen():
    config = base_config()
    config.optim.freeze = ("stem",)
    config.optim.body_rate = 0.1
    params = {
        "stem": {"kernel": np.ones((3, 2))},
        "conv": {"kernel": np.ones((2, 2)), "bias": np.ones(2), "gain": np.ones(2)},
        "skip_gain": np.ones(()),
        "classifier": {"kernel": np.ones((2, 4)), "bias": np.ones(4)},
    }
    table = describe_groups(config.optim, params)
    assert "weight_decay 0.0005: 2 arrays, 12 of 27 parameters" in table
    assert "frozen: 1 arrays, 6 of 27 parameters; by stem" in table
    assert "body_rate 0.1: 4 arrays, 9 of 27 parameters" in table
    assert "frozen" not in describe_groups(base_config().optim, params)


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


@pytest.mark.parametrize("removed", [False, True])
def test_a_classifier_of_other_classes_is_new(removed):
    _, params, stats = variables(classes=3)
    _, others, _ = variables(seed=1)
    if removed:
        head = {k: v for k, v in others["head"].items() if k != "classifier"}
        others = {**others, "head": head}
    taken, _, line = start(others, params, stats, names="abc")
    for name, leaf in leaves(taken).items():
        source = params if "classifier" in name else others
        np.testing.assert_array_equal(leaf, leaves(source)[name])
    assert f"{len(leaves(params)) - 2} arrays; the classifier is new" in line


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


def make_folder(root, classes, modes=("RGB",)):
    random = np.random.RandomState(len(classes))
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        mode = modes[label % len(modes)]
        for i in range(4):
            values = random.randint(0, 64, (9 + i, 14 - i, 3)) + 15 * label
            image = Image.fromarray(values.astype(np.uint8)).convert(mode)
            image.save(root / name / f"{i}.png")


def run_config(root, **changes):
    config = base_config()
    config.model.name = NAME
    config.data.name = f"folder:{root}"
    config.data.image_size = 8
    config.data.batch_size = 8
    config.data.eval_batch_size = 8
    config.train.steps = 4
    config.log.tensorboard = False
    config.update_from_flattened_dict(changes)
    return config


CONFIG = """\
import json
from nfnet_jax.config import from_json


def get_config():
    with open("config.json") as file:
        return from_json(json.load(file))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run of five classes, a folder of ten, and a config for it."""
    root = tmp_path_factory.mktemp("finetune")
    modes = ("RGB", "L", "RGBA", "P", "LA", "1")
    make_folder(root / "ten", [f"c{i}" for i in range(10)], modes)
    source = str(root / "source")
    create_workdir(source, run_config("five", **{"model.alpha": 0.3}))
    names = tuple("abcde")
    facts = DataSpec((0.2, 0.3, 0.4), (0.5, 0.6, 0.7), names, SHAPE)
    write_data_spec(source, facts)
    _, params, stats = variables(classes=5, seed=8)
    state = init_state(params, stats, optax.sgd(0.1))
    with Checkpoints(source) as checkpoints:
        checkpoints.save(state.replace(ema_params=variables(classes=5, seed=9)[1]))
    (root / "finetune.py").write_text(CONFIG)
    (root / "file.bin").write_bytes(b"no weights")
    (root / "empty").mkdir()
    return root


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("NFNET_JAX_CACHE", str(place / "cache"))
    monkeypatch.setattr(runtime, "enable_compilation_cache", lambda: None)
    changes = {"optim.freeze": ("stem",), "optim.body_rate": 0.1}
    config = run_config("ten", **changes)
    (place / "config.json").write_text(json.dumps(to_json(config)))
    return place


def command(monkeypatch, *arguments):
    words = ["train.py", "--config=finetune.py", *arguments]
    monkeypatch.setattr(sys, "argv", words)
    cli.run(train_main.main)


def ema_params(workdir, shapes):
    with Checkpoints(str(workdir)) as checkpoints:
        return checkpoints.restore_some({"ema_params": shapes})["ema_params"]


def test_a_run_starts_from_another_run(here, monkeypatch, capsys):
    weights = "--config.model.weights=source"
    command(monkeypatch, weights, "--workdir=tuned")
    output = capsys.readouterr().out
    assert "starting from source" in output and "the classifier is new" in output
    assert "frozen: 3 arrays" in output and "body_rate 0.1: " in output
    # config.json alone rebuilds the model, alpha included.
    config = json.loads((here / "tuned/config.json").read_text())
    assert config["model"]["alpha"] == 0.3
    facts = json.loads((here / "tuned/data.json").read_text())
    np.testing.assert_array_equal(facts["mean"], np.float32([0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(facts["std"], np.float32([0.5, 0.6, 0.7]))
    assert facts["class_names"] == [f"c{i}" for i in range(10)]
    # Averages are taken, and what is frozen stays what they were.
    stem = {"stem": variables(classes=5, seed=9)[1]["stem"]}
    tuned = ema_params(here / "tuned", stem)
    jax.tree.map(np.testing.assert_array_equal, tuned, stem)

    # Evaluation normalizes as the source did.
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--workdir=tuned"])
    cli.run(evaluate.main)
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = json.loads((here / "tuned/result.json").read_text())
    assert scores["loss"] == pytest.approx(result["test_loss"], rel=1e-6)

    # The finished run is recognized though the weights are gone.
    (here / "source").rename(here / "moved")
    try:
        command(monkeypatch, weights, "--workdir=tuned")
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
    with pytest.raises(SystemExit) as exit_:
        command(monkeypatch, *arguments, "--config.eval.every_epochs=1.5")
    assert exit_.value.code == 130
    assert asked == [(NAME, "somewhere", {"headless": True})]
    monkeypatch.setattr(Experiment, "evaluate", evaluation)
    monkeypatch.setattr(published, "load_pretrained", None)
    command(monkeypatch, *arguments, "--config.eval.every_epochs=1.5")
    assert "continuing from step 3 of 4" in capsys.readouterr().out
    config = json.loads((here / "from_published/config.json").read_text())
    assert config["model"]["gamma"] == "published"
    facts = json.loads((here / "from_published/data.json").read_text())
    np.testing.assert_allclose(facts["mean"], (0.485, 0.456, 0.406), rtol=1e-6)

    # Bit for bit what an uninterrupted run gives.
    monkeypatch.setattr(published, "load_pretrained", load)
    command(
        monkeypatch,
        *arguments[:-1],
        "--config.eval.every_epochs=1.5",
        "--workdir=whole",
    )
    shapes = variables()[1]
    runs = [ema_params(here / run, shapes) for run in ("from_published", "whole")]
    jax.tree.map(np.testing.assert_array_equal, *runs)


def stop_instead(experiment, state):
    raise KeyboardInterrupt


def test_a_run_begins_with_the_parameters_and_the_moments_of_the_weights(here):
    _, params, _ = variables(seed=5)
    config = run_config(here / "ten", **{"model.weights": "given"})
    names = tuple(f"c{i}" for i in range(10))
    moments = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    pretrained = Pretrained(params, *moments, class_names=names)
    run = Experiment(config, pretrained=pretrained)
    jax.tree.map(np.testing.assert_array_equal, run.state.params, params)
    jax.tree.map(np.testing.assert_array_equal, run.state.ema_params, params)
    np.testing.assert_allclose(run.data_spec.mean, (0.1, 0.2, 0.3))
    np.testing.assert_allclose(run.data_spec.std, (0.4, 0.5, 0.6))


def test_weights_that_nobody_loaded_are_an_error(here, tmp_path):
    config = run_config(here / "ten", **{"model.weights": "given"})
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
    (["model.weight=source"], ["'model.weight'", "model.weights"]),
    (["optim.freeze=('steem',)"], ["optim.freeze: 'steem' matches no", "'stem'?"]),
    (["optim.freeze=('*',)"], ["optim.freeze: '*' is not a regular"]),
    (["optim.freeze=('.',)"], ["freezes all", "expected some to train"]),
    (["optim.freeze=3"], ["optim.freeze is (3,)", "regular expressions"]),
    (["optim.body_rate=0"], ["optim.body_rate is 0.0", "above 0"]),
    (["optim.body_rate=slow"], ["optim.body_rate is 'slow'", "a number"]),
    (["model.group_width=0"], ["model.group_width is 0", "at least 1"]),
    (["model.expansion=0.5"], ["no option 'expansion'"]),
    (["data.name=folder:"], ["'folder:'", "folder:PATH"]),
    (["data.name=folder:tenn"], ["no directory 'tenn'", "'ten'?"]),
    (["data.name=ten"], ["did you mean 'folder:ten'?"]),
    (["data.name=folder:empty"], ["a directory of images for every class"]),
    (["data.train_split=trian"], ["data.train_split is 'trian'", "'train'?"]),
    (["data.image_size=100000"], ["data.image_size is 100000", "[1, 16384)"]),
]


@pytest.mark.parametrize(("values", "words"), MALFORMED, ids=lambda v: v[0][:40])
def test_malformed_invocations(values, words, here, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_:
        command(
            monkeypatch, *[f"--config.{value}" for value in values], "--workdir=bad"
        )
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    for word in words:
        assert word in stderr
    assert not (here / "bad").exists()
