"""Checks of the data before any weights are downloaded."""

import pathlib
import re

import pytest
from data_sets import save_images
from tiny_run import tiny_config

from nfnet_jax import train
from nfnet_jax.training.timeline import make_timeline
from nfnet_jax.utils.errors import UserError

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """A list of the weights asked for, and a folder "set" of 2 classes of 8 images."""
    asked = []

    def locate(weights):
        asked.append(weights)
        raise UserError("no network")

    monkeypatch.setattr("nfnet_jax.weights.load.weights_file", locate)
    monkeypatch.setattr("nfnet_jax.cli.prepare_jax", lambda: None)
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "set", classes=2, images=8)
    return asked


@pytest.mark.parametrize(
    ("folder", "changes", "words"),
    [
        ("sett", [], r"no directory 'sett'.*did you mean 'set'\?"),
        (
            "set",
            [],
            r"batch_size is 32, expected at most 12.*--config.data.batch_size=12",
        ),
        ("set", ["data.train_split=trained"], "data.train_split"),
        ("set", ["data.name=tfds:cifar1O"], "TFDS knows no set"),
        (
            "set",
            ["model.num_classes=1", "data.batch_size=4"],
            "at least 2, the classes",
        ),
        (
            "set",
            ["data.image_size=16", "data.batch_size=4"],
            "crop_padding is 16, expected less than the 16 pixels",
        ),
    ],
)
def test_wrong_data_are_told_before_weights_are_asked_for(
    folder, changes, words, downloads
):
    flags = [f"--config.{change}" for change in changes]
    with pytest.raises(UserError, match=words):
        train.main(["train.py", f"--config={CONFIGS / 'finetune.py'}:{folder}", *flags])
    assert downloads == []


def test_right_data_let_the_weights_be_asked_for(downloads):
    flags = ["--config.data.batch_size=4", f"--config={CONFIGS / 'finetune.py'}:set"]
    with pytest.raises(UserError, match="model.weights: no network"):
        train.main(["train.py", *flags])
    assert downloads == ["timm_nf_resnet50"]


@pytest.mark.parametrize(
    ("examples", "devices", "changes", "largest"),
    [
        (52, 1, {}, 52),
        (52, 8, {}, 48),
        (52, 2, {"optim.accumulate": 3}, 48),
        (52, 4, {"optim.sam.rho": 0.1, "optim.sam.fraction": 0.25}, 48),
        (52, 1, {"optim.sam.rho": 0.1, "optim.accumulate": 5}, 50),
        (7, 8, {}, None),
    ],
)
def test_the_batch_that_is_named_works(examples, devices, changes, largest):
    """And no larger one does."""
    config = tiny_config(**{"data.batch_size": 256, **changes})
    with pytest.raises(UserError, match=f"at most {examples}") as error:
        make_timeline(config, examples, devices)
    named = re.search(r"; set --config\.data\.batch_size=(\d+)$", str(error.value))
    works = []
    for batch in range(1, examples + 1):
        config.data.batch_size = batch
        try:
            make_timeline(config, examples, devices)
            works.append(batch)
        except UserError:
            continue
    assert (int(named[1]) if named else None) == max(works, default=None) == largest


def test_a_batch_that_does_not_divide_gets_one_that_does():
    config = tiny_config(**{"data.batch_size": 30})
    with pytest.raises(UserError, match=r"multiple of 8.*--config.data.batch_size=32$"):
        make_timeline(config, 1000, 8)
    with pytest.raises(UserError, match=r"multiple of 8.*--config.data.batch_size=24$"):
        make_timeline(config, 31, 8)
