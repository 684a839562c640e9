"""A run through the stream loader, stopped and continued in the middle of an epoch."""

import multiprocessing

import jax
import numpy as np
import pytest
from data_sets import write_jpeg_set
from tiny_run import last_state, tiny_config

from nfnet_jax.data.sources.arrays import from_arrays
from nfnet_jax.training import loop
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.utils.errors import UserError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    write_jpeg_set(data_dir)
    return data_dir


def make_config(data_dir, workers):
    options = {
        "data.name": "tfds:jpegs",
        "data.dir": str(data_dir),
        "data.image_size": 16,
        "data.batch_size": 32,
        "data.workers": workers,
        "data.augment.random_resized_crop": True,
        "data.augment.flip": True,
        # Two images are drawn for each of a batch.
        "train.mixup": 0.2,
        "train.cutmix": True,
        "train.steps": 13,
        "checkpoint.every_epochs": 0.6,
        "eval.every_epochs": 0.8,
    }
    return tiny_config(**options)


@pytest.fixture
def seen(replace_updates):
    """The labels, which number the images, of all batches that were trained on."""
    labels = []

    def record(update, state, fed):
        labels.append(np.asarray(fed[1]))
        return update(state, fed)

    replace_updates(record)
    return labels


def stop_instead(experiment, state):
    raise KeyboardInterrupt


def test_a_continued_run_sees_what_it_would_have_seen(
    data_dir, seen, tmp_path, monkeypatch
):
    straight, stopped = str(tmp_path / "straight"), str(tmp_path / "stopped")
    config = make_config(data_dir, workers=0)
    loop.train(config, straight)
    expected = np.concatenate(seen)
    assert len(expected) == 2 * 13 * 32
    np.testing.assert_array_equal(np.sort(expected[:200]), np.arange(200))

    seen.clear()
    config = make_config(data_dir, workers=2)
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "evaluate", stop_instead)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, stopped)
    with Checkpoints(stopped) as checkpoints:
        assert checkpoints.latest_step == 4
    del seen[4:]
    loop.train(config, stopped)
    np.testing.assert_array_equal(np.concatenate(seen), expected)
    states = [last_state(workdir, config) for workdir in (straight, stopped)]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_a_dead_worker_ends_the_run_that_continues(data_dir, tmp_path, replace_updates):
    config = make_config(data_dir, workers=2)

    def kill_workers(update, state, fed):
        for worker in multiprocessing.active_children():
            worker.kill()
        return update(state, fed)

    replace_updates(kill_workers)
    with pytest.raises(UserError, match="a worker of the data loader died") as error:
        loop.train(config, str(tmp_path))
    assert "exit code -9" in str(error.value) and "\n" not in str(error.value)
    replace_updates(lambda update, *arguments: update(*arguments))
    assert loop.train(config, str(tmp_path))["steps"] == 13


@pytest.mark.parametrize("loader", ["memory", "stream"])
def test_arrays_are_a_data_set(tmp_path, loader):
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(40) % 3
    dataset = from_arrays(
        {"train": (images, labels)}, train_split="train[:80%]", eval_split="train[80%:]"
    )
    config = tiny_config(**{"train.steps": 2, "data.loader": loader, "data.workers": 0})
    result = loop.train(config, str(tmp_path), dataset=dataset)
    assert result["dataset"] == "arrays"
    assert 0 <= result["test_accuracy"] <= 1
