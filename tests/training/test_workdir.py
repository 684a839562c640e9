"""Work directories: configs that may continue, data.json, networks of runs."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny_run import last_state, tiny_config

from nfnet_jax.config import base_config, to_json
from nfnet_jax.config.keys import KEYS
from nfnet_jax.training.data_spec import DataSpec, read_data_spec, write_data_spec
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.loop import train
from nfnet_jax.training.trained import load_run
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
    check_workdir(str(tmp_path), changed(**{"name": "other", "checkpoint.keep": 9}))


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


# --- data.json and checkpoints --------------------------------------------------------


SPEC = DataSpec((0.5,), (0.25,), ("no", "yes"), (8, 8, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.5, 0.5]},
        {"mean": [None]},
        {"std": [0.0]},
        {"class_names": []},
        {"class_names": ["a", 3]},
        {"image_shape": [8, 8]},
        {"more": []},
    ],
)
def test_damaged_facts_are_one_line(tmp_path, change):
    write_data_spec(str(tmp_path), SPEC)
    path = tmp_path / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="data.json is damaged"):
        read_data_spec(str(tmp_path))


@pytest.mark.parametrize("name", ["nf_wrn_10_1", "bn_wrn_10_1"])
def test_a_run_gives_back_its_averaged_network(tmp_path, name):
    patterns = {
        "optim.weight_decay_exclude": ("bias$",),
        "optim.agc.exclude": ("head",),
    }
    config = tiny_config(**{"model.name": name, "train.steps": 2}, **patterns)
    train(config, str(tmp_path))
    trained = load_run(str(tmp_path))
    assert trained.data_spec == Experiment(config).data_spec
    ema = last_state(tmp_path, config).ema_params
    jax.tree.map(np.testing.assert_array_equal, trained.variables["params"], ema)
    assert bool(trained.variables.get("batch_stats")) == name.startswith("bn")
    logits = trained.model.apply(trained.variables, np.zeros((3, 8, 8, 1), "float32"))
    assert logits.shape == (3, 10)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="no complete checkpoint"):
        load_run(str(tmp_path))
