"""The base config and the files in configs/."""

import ast
import json
import pathlib

import pytest

import nfnet_jax
from nfnet_jax import cli
from nfnet_jax.config import (
    KEYS,
    base_config,
    check_config,
    from_json,
    leaves,
    nearest_key,
    to_json,
)
from nfnet_jax.errors import UserError, nearest
from nfnet_jax.training.setup import check_buildable

PACKAGE = pathlib.Path(nfnet_jax.__file__).parent
CONFIGS = sorted((PACKAGE.parent / "configs").glob("*.py"))


@pytest.fixture(scope="module")
def nodes() -> list[ast.AST]:
    """The syntax of every module but those that define the config."""
    own = ("config.py", "config_keys.py")
    paths = [path for path in PACKAGE.rglob("*.py") if path.name not in own]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    return [node for tree in trees for node in ast.walk(tree)]


@pytest.mark.parametrize("path", KEYS)
def test_every_key_is_read_somewhere(path, nodes):
    section, _, leaf = path.rpartition(".")
    read = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    if section == "model":
        # Model options travel by name, as `**model_overrides(config)`.
        read |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    assert leaf in read


def test_every_key_says_what_it_means_and_expects():
    for path, key in KEYS.items():
        assert key.meaning, path
        assert key.expected and key.expected != "any value", path


def test_the_base_config_passes_its_own_checks():
    check_config(base_config())
    assert leaves(base_config()).keys() == KEYS.keys()


def test_the_base_config_takes_no_new_keys():
    with pytest.raises(AttributeError):
        base_config().optim.lr = 0.1


def test_json_round_trip_is_exact():
    config = base_config()
    config.model.num_classes = 7
    config.model.weight_standardization = False
    config.data.dir = "~/données"
    config.optim.learning_rate = 0.1 + 0.2
    config.optim.agc.exclude = ("classifier", r"conv\d+/kernel$")
    config.optim.weight_decay_exclude = ()
    restored = from_json(json.loads(json.dumps(to_json(config))))
    assert leaves(restored) == leaves(config)
    types = [[type(value) for value in leaves(c).values()] for c in (restored, config)]
    assert types[0] == types[1]
    assert to_json(restored) == to_json(config)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optim": {"lr": 1}}, "'optim.learning_rate'"),
        ({"nothing": {"like": {"it": 1}}}, "'nothing.like.it'"),
        ({"optim": 1}, "'optim' is a section"),
        ({"seed": {"a": 1}}, "'seed.a'"),
        ({"seed": "1"}, "seed is '1', expected a whole number"),
        ({"optim": {"agc": {"exclude": 3}}}, "optim.agc.exclude is 3"),
    ],
)
def test_json_of_other_keys_or_types_is_refused(values, words):
    with pytest.raises(UserError) as error:
        from_json(values)
    assert words in str(error.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_files_are_valid(path):
    config, _ = cli.parse_config_flags(["train.py", f"--config={path}"], workdir="")
    check_config(config)
    check_buildable(config)
    assert config.name.startswith(path.stem)


def test_there_are_config_files():
    assert CONFIGS


@pytest.mark.parametrize("path", KEYS)
def test_a_key_without_its_section_is_recognized(path):
    leaf = path.rpartition(".")[2]
    assert f"{leaf}'?" in nearest_key(leaf)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data.augment.crop", "data.augment.crop_padding"),
        ("train.crop", "data.crop"),
        ("data.size", "data.image_size"),
        ("train.momentum", "optim.momentum"),
    ],
)
def test_a_key_of_the_section_that_was_named_is_nearest(path, expected):
    assert nearest_key(path) == f"; did you mean {expected!r}?"


@pytest.mark.parametrize(
    ("word", "choices", "expected"),
    [
        ("digts", ["digits", "tfds:cifar10"], "digits"),
        ("--work-dir", ["--workdir", "--split"], "--workdir"),
        ("resnet50", ["nf_resnet101", "nf_resnet50"], "nf_resnet50"),
        ("Train", ["train", "test"], "train"),
    ],
)
def test_nearest(word, choices, expected):
    assert nearest(word, choices) == f"; did you mean {expected!r}?"


def test_nearest_is_silent_where_nothing_is_near():
    assert nearest("qqqq", ["digits", "train"]) == ""
    assert nearest("qqqq", []) == ""
