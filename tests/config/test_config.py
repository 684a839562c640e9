"""The base config and the files in configs/."""

import ast
import json
import math
import pathlib
import re

import numpy as np
import pytest
from data_sets import refusal

import nfnet_jax
from nfnet_jax import cli
from nfnet_jax.config import (
    KEYS,
    base_config,
    check_config,
    from_json,
    leaves,
    load,
    to_json,
)
from nfnet_jax.config.base import nearest_key
from nfnet_jax.config.kinds import Choice, Float, read_list
from nfnet_jax.data.images.preprocess import CROPS
from nfnet_jax.layers.activations import ACTIVATIONS, GAMMAS
from nfnet_jax.layers.residual import BETAS
from nfnet_jax.models.blocks import channel_attention
from nfnet_jax.optim.factory import OPTIMIZERS
from nfnet_jax.optim.schedules import warmup_then
from nfnet_jax.training.workdir import check_workdir, create_workdir
from nfnet_jax.utils.errors import UserError, nearest

PACKAGE = pathlib.Path(nfnet_jax.__file__).parent
CONFIGS = sorted((PACKAGE.parent / "configs").glob("*.py"))


def test_every_key_has_a_meaning_and_is_read_outside_of_the_config():
    paths = [p for p in PACKAGE.rglob("*.py") if p.parent.name != "config"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    read = {node.attr for node in attributes if isinstance(node.ctx, ast.Load)}
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    for path, key in KEYS.items():
        section, _, leaf = path.rpartition(".")
        # These options travel by name, as `**model_overrides(config)`.
        by_name = (
            section in ("model", "optim.schedule", "optim.adam") and leaf in arguments
        )
        assert leaf in read or by_name, path
        assert key.meaning and key.expected, path


NUMBERS = [path for path, key in KEYS.items() if isinstance(key, Float)]


@pytest.mark.parametrize("path", NUMBERS)
def test_numbers_outside_their_interval_are_refused(path):
    """Bounds themselves are refused where the interval is open."""
    key = KEYS[path]
    low, high = map(float, key.interval[1:-1].split(", "))
    outside = [low if key.interval[0] == "(" else low - 1]
    if high < math.inf:
        outside.append(high if key.interval[-1] == ")" else high + 1)
    for value in outside:
        with pytest.raises(UserError, match=re.escape(f", expected {key.expected}")):
            load(CONFIGS[0], {path: key.type(value)})


@pytest.mark.parametrize(
    ("path", "implemented"),
    [
        ("optim.name", OPTIMIZERS),
        ("data.crop", CROPS),
        ("model.activation", ACTIVATIONS),
        ("model.gamma", GAMMAS),
        ("model.beta", BETAS),
    ],
)
def test_choices_are_what_is_implemented(path, implemented):
    """Keys list the names themselves because these modules import JAX."""
    assert sorted(KEYS[path].choices) == sorted(implemented)


def test_every_choice_of_a_schedule_and_of_an_attention_is_implemented():
    for name in KEYS["optim.schedule.name"].choices:
        assert warmup_then(name, 0.1, 2, 10, boundaries=(0.5,))(3) > 0
    for name in KEYS["model.attention"].choices:
        assert channel_attention(name, 0.5)
    with pytest.raises(KeyError):
        warmup_then("none", 0.1, 2, 10)(3)


def test_a_config_is_loaded_with_overrides():
    config = load(f"{CONFIGS[0].parent}/imagenet_nfnet.py:f1", {"optim.momentum": 0})
    assert config.model.name == "nfnet_f1"
    assert config.optim.momentum == 0.0 and isinstance(config.optim.momentum, float)
    for overrides, message in (
        ({"optim.lr": 0.1}, "unknown config key 'optim.lr'; did you mean 'optim.lear"),
        ({"optim.momentum": "0"}, "optim.momentum is '0', expected a number in"),
        ({"optim.momentum": 1}, r"optim.momentum is 1.0, expected .* in \[0, 1\)"),
        ({"optim": {}}, "'optim' is a section"),
    ):
        with pytest.raises(UserError, match=message):
            load(CONFIGS[0], overrides)


def test_values_that_exclude_each_other_are_refused():
    fsdp = {"parallel.fsdp": True, "parallel.mode": "pmap"}
    crops = {"data.augment.crop_padding": 2, "data.augment.random_resized_crop": True}
    assert "parallel.fsdp is True with" in refusal(load, CONFIGS[0], fsdp)
    assert "expected only one crop" in refusal(load, CONFIGS[0], crops)


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
    assert words in refusal(from_json, values)


LISTS = {
    ("a", "b"): (
        "['a', 'b']", '("a","b")', "a,b", "[a,b]", "( a , b )", '["a", "b"]', "a,b,",
        "[a, 'b',]", r"r'a',b",
    ),
    ("a",): ("a", "[a]", "(a,)", "(a)", "'a'", '["a"]', " a "),
    (): ("[]", "()", "[ ]"),
    # Regular expressions keep their own brackets, commas and backslashes.
    ("stages_[0,1]/", "b{1,2}"): (
        "stages_[0,1]/,b{1,2}", "[stages_[0,1]/, b{1,2}]", "['stages_[0,1]/','b{1,2}']",
    ),
    ("[ab]c", "[cd]e"): ("[ab]c,[cd]e", "([ab]c,[cd]e)"),
    ("(a|b)$",): ("(a|b)$", "[(a|b)$]"),
    ("(?i:a,b)",): ("(?i:a,b)",),
    ("[^]a]x", r"c\d"): (r"[^]a]x,c\d", r"['[^]a]x', 'c\\d']", r"['[^]a]x', 'c\d']"),
    ("[ab]",): ("'[ab]'", "['[ab]']"),
    (0.5, 0.75): ("0.5,0.75", "[.5, 75e-2]", "(0.5, 0.75)"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("expected", "text"), [(e, text) for e, texts in LISTS.items() for text in texts]
)
def test_a_list_in_any_notation(expected, text):
    assert read_list(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ",", "(,)", "a,,b", "[a", "a]", "('a',", "'a", "'a' 'b'", "'a'b", "[a,b],"]
    + ["[[a,b]]", "[a],[b]", "['a',,'b']", "a(b", "a)b"],
)
def test_what_is_no_list_is_refused_and_not_guessed(text):
    with pytest.raises(ValueError, match=" is no "):
        read_list(text)


def test_what_python_and_json_print_is_read_back():
    letters = r"ab/_.$^*+?()[]{}|\\,'\" "
    random = np.random.RandomState(0)
    for _ in range(500):
        lengths = random.randint(1, 9, random.randint(4))
        items = ["".join(random.choice([*letters], length)) for length in lengths]
        for text in (repr(items), repr(tuple(items)), json.dumps(items)):
            assert read_list(text) == tuple(items)


def parsed(*arguments):
    return cli.parse(["train.py", *arguments], "", config="optional").config


def config_file(folder, line):
    """File whose config differs from the base by `line`."""
    file = folder / "config.py"
    body = f"    config = base_config()\n    {line}\n    return config\n"
    start = "from nfnet_jax.config import base_config\n\n\ndef get_config():\n"
    file.write_text(start + body)
    return file


PATTERNS = ("optim.weight_decay_exclude", "optim.agc.exclude", "optim.freeze")


@pytest.mark.parametrize("key", PATTERNS)
@pytest.mark.parametrize("expected", [("a", "b"), ("a",), ()], ids=str)
def test_every_notation_makes_the_same_config(key, expected, tmp_path):
    config = base_config()
    config.update_from_flattened_dict({key: expected})
    create_workdir(str(tmp_path), config)
    file = config_file(tmp_path, f"config.{key} = {list(expected)!r}")
    found = [parsed(f"--config.{key}={text}") for text in LISTS[expected]]
    found += [parsed(f"--config.{key}", text) for text in LISTS[expected]]
    found += [parsed(f"--config={file}"), from_json(to_json(config))]
    for other in found:
        assert leaves(other) == leaves(config)
        check_workdir(str(tmp_path), other)


def test_a_list_of_numbers_and_what_is_none():
    key = "--config.optim.schedule.boundaries"
    for text in LISTS[0.5, 0.75]:
        assert parsed(f"{key}={text}").optim.schedule.boundaries == (0.5, 0.75)
    for text in ("0.75,0.5", "['a']", "[0.5", "0.5;0.75", ""):
        line = refusal(parsed, f"{key}={text}")
        assert "expected a list of increasing numbers" in line


def test_a_text_in_the_place_of_a_list_is_not_its_characters(tmp_path):
    file = config_file(tmp_path, "config.optim.freeze = 'stem'")
    line = refusal(parsed, f"--config={file}")
    assert "freeze is stem (str), expected tuple such" in line
    line = refusal(from_json, {"optim": {"freeze": "stem"}})
    assert "optim.freeze is 'stem', expected a list" in line


@pytest.mark.parametrize("path", [p for p, k in KEYS.items() if isinstance(k, Choice)])
def test_the_choice_that_is_written_otherwise_is_named(path):
    for choice in KEYS[path].choices:
        line = refusal(parsed, f"--config.{path}={choice.upper()}")
        assert f"did you mean '{choice}'?" in line


def test_a_key_without_its_section_is_recognized():
    for leaf in (path.rpartition(".")[2] for path in KEYS):
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
