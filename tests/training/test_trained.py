"""Work directories read by later commands."""

import json

import jax
import numpy as np
import pytest

from nfnet_jax.config import base_config
from nfnet_jax.data.load import load_dataset
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.data_spec import DataSpec, read_data_spec, write_data_spec
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.loop import train
from nfnet_jax.training.trained import load_run
from nfnet_jax.utils.errors import UserError

SPEC = DataSpec((0.5,), (0.25,), ("no", "yes"), (8, 8, 1))


def test_facts_are_read_as_they_were_written(tmp_path):
    write_data_spec(str(tmp_path), SPEC)
    assert read_data_spec(str(tmp_path)) == SPEC


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
    config = base_config()
    config.model.name = name
    config.data.batch_size = 16
    config.train.steps = 2
    config.optim.agc.exclude = ("classifier",)
    config.optim.weight_decay_exclude = ("bias$",)
    train(config, str(tmp_path))
    trained = load_run(str(tmp_path))
    digits = load_dataset("digits")
    assert trained.data_spec.class_names == digits.class_names
    assert trained.data_spec.image_shape == digits.image_shape
    np.testing.assert_array_equal(trained.data_spec.mean, digits.mean)
    with Checkpoints(str(tmp_path)) as checkpoints:
        state = checkpoints.restore(Experiment(config).abstract_state)
    jax.tree.map(
        np.testing.assert_array_equal, trained.variables["params"], state.ema_params
    )
    assert bool(trained.variables.get("batch_stats")) == name.startswith("bn")
    logits = trained.model.apply(trained.variables, np.zeros((3, 8, 8, 1), "float32"))
    assert logits.shape == (3, 10)
    for path in sorted((tmp_path / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match="no complete checkpoint"):
        load_run(str(tmp_path))
