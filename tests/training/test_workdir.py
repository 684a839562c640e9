"""A work directory knows its config."""

import json

import pytest

from nfnet_jax.config import base_config, to_json
from nfnet_jax.errors import UserError
from nfnet_jax.training.workdir import check_workdir, create_workdir


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


def test_keys_that_have_come_since_have_their_defaults(tmp_path):
    values = to_json(base_config())
    del values["optim"]["nesterov"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    check_workdir(str(tmp_path), base_config())
    with pytest.raises(UserError, match="optim.nesterov is True there, False here"):
        check_workdir(str(tmp_path), changed(**{"optim.nesterov": False}))
