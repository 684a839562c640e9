"""Configs that may continue the run of a work directory."""

import json

import pytest

from nfnet_jax.config import base_config, to_json
from nfnet_jax.config.keys import KEYS
from nfnet_jax.training.workdir import check_workdir, create_workdir, may_change
from nfnet_jax.utils.errors import UserError


def changed(**changes):
    config = base_config()
    config.update_from_flattened_dict(changes)
    return config


def test_all_keys_that_differ_are_named(tmp_path):
    create_workdir(str(tmp_path), base_config())
    different = {"seed": 1, "data.batch_size": 64, "optim.momentum": 0.5}
    with pytest.raises(UserError) as error:
        check_workdir(str(tmp_path), changed(**different))
    for told in (
        "data.batch_size is 128 there, 64 here",
        "optim.momentum is 0.9 there, 0.5 here",
        "seed is 0 there, 1 here",
    ):
        assert told in str(error.value)
    more = different | {f"model.{key}": 0.5 for key in ("alpha", "se_ratio")}
    more |= {"optim.weight_decay": 0.1, "train.epochs": 3.0}
    with pytest.raises(UserError, match="another config .*; and 2 more") as error:
        check_workdir(str(tmp_path), changed(**more))
    assert str(error.value).count(" there, ") == 5


def test_what_training_does_not_depend_on_may_change(tmp_path):
    create_workdir(str(tmp_path), base_config())
    free = {
        "name": "other",
        "checkpoint.keep": 9,
        "data.workers": 3,
        "eval.every_epochs": 2.0,
        "log.every_steps": 1,
        "train.on_nan": "skip",
    }
    check_workdir(str(tmp_path), changed(**free))


def test_exactly_these_keys_may_change():
    free = {"name", "data.dir", "data.eval_batch_size", "data.workers"}
    free |= {"train.on_nan", "train.remat"}
    sections = {"checkpoint", "eval", "log", "parallel"}
    for key in KEYS:
        assert may_change(key) == (key in free or key.split(".")[0] in sections)
    for key in ("names", "data.directory", "data.workers_more", "evaluation.x", "eval"):
        assert not may_change(key)


@pytest.mark.parametrize("key", ["data.name", "model.weights"])
def test_a_place_may_be_written_in_several_ways(tmp_path, monkeypatch, key):
    kind = "folder:" if key == "data.name" else ""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to("set")
    create_workdir("run", changed(**{key: f"{kind}set"}))
    for place in ("set/", "./set", "link", f"{tmp_path}/set", "~/set", "set/../set"):
        check_workdir("run", changed(**{key: f"{kind}{place}"}))
    for other in (f"{kind}set2", f"{kind}set/train", "digits", "set", "folder:set"):
        if other == f"{kind}set":
            continue
        with pytest.raises(UserError, match=f"{key} is '{kind}set' there"):
            check_workdir("run", changed(**{key: other}))


def test_keys_that_have_come_since_have_their_defaults(tmp_path):
    values = to_json(base_config())
    del values["optim"]["nesterov"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    check_workdir(str(tmp_path), base_config())
    with pytest.raises(UserError, match="optim.nesterov is True there, False here"):
        check_workdir(str(tmp_path), changed(**{"optim.nesterov": False}))
