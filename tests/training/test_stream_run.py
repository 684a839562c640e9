"""A run through the stream loader, stopped and continued in the middle of an epoch."""

import multiprocessing

import jax
import numpy as np
import pytest
from data_sets import write_jpeg_set

from nfnet_jax.config import base_config
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


def make_config(data_dir, workers, **changes):
    config = base_config()
    config.model.name = "nf_wrn_10_1"
    config.data.name = "tfds:jpegs"
    config.data.dir = str(data_dir)
    config.data.image_size = 16
    config.data.batch_size = 32
    config.data.workers = workers
    config.data.augment.random_resized_crop = True
    config.data.augment.flip = True
    config.train.epochs = 2.0
    config.optim.learning_rate = 0.01
    config.checkpoint.every_epochs = 0.6
    config.eval.every_epochs = 0.8
    config.log.tensorboard = False
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def seen(monkeypatch):
    """The labels, which number the images, of all batches that were trained on."""
    labels = []
    make_train_step = Experiment.make_train_step

    def recording(*arguments, **options):
        step = make_train_step(*arguments, **options)

        def record(state, fed):
            labels.append(np.asarray(fed[1]))
            return step(state, fed)

        return record

    monkeypatch.setattr(Experiment, "make_train_step", recording)
    return labels


def stop_instead(experiment, state):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("mixing", "drawn"), [({}, 1), ({"train.mixup": 0.2, "train.cutmix": True}, 2)]
)
def test_a_continued_run_sees_what_it_would_have_seen(
    data_dir, seen, tmp_path, monkeypatch, mixing, drawn
):
    straight, stopped = str(tmp_path / "straight"), str(tmp_path / "stopped")
    config = make_config(data_dir, 0, **mixing)
    result = loop.train(config, straight)
    expected = np.concatenate(seen)
    assert len(expected) == result["steps"] * 32 * drawn == 13 * 32 * drawn
    np.testing.assert_array_equal(np.sort(expected[:200]), np.arange(200))

    seen.clear()
    config = make_config(data_dir, 2, **mixing)
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "evaluate", stop_instead)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, stopped)
    with Checkpoints(stopped) as checkpoints:
        assert checkpoints.latest_step == 4
    del seen[4:]
    loop.train(config, stopped)
    np.testing.assert_array_equal(np.concatenate(seen), expected)
    states = []
    for workdir in (straight, stopped):
        with Checkpoints(workdir) as checkpoints:
            states.append(checkpoints.restore(Experiment(config).abstract_state))
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_dead_worker_ends_the_run_which_continues(data_dir, tmp_path, monkeypatch):
    workdir = str(tmp_path / "run")
    config = make_config(data_dir, workers=2)
    make_train_step = Experiment.make_train_step

    def killing(*arguments, **options):
        step = make_train_step(*arguments, **options)

        def run(state, fed):
            for worker in multiprocessing.active_children():
                worker.kill()
            return step(state, fed)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "make_train_step", killing)
        with pytest.raises(
            UserError, match="a worker of the data loader died"
        ) as error:
            loop.train(config, workdir)
    assert "exit code -9" in str(error.value) and "\n" not in str(error.value)
    assert loop.train(config, workdir)["steps"] == 13


@pytest.mark.parametrize("loader", ["memory", "stream"])
def test_arrays_are_a_data_set(tmp_path, loader):
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(40) % 3
    dataset = from_arrays(
        {"train": (images, labels)}, train_split="train[:80%]", eval_split="train[80%:]"
    )
    config = base_config()
    config.model.name = "nf_wrn_10_1"
    config.data.batch_size, config.train.steps = 16, 2
    config.data.loader, config.data.workers = loader, 0
    config.log.tensorboard = False
    result = loop.train(config, str(tmp_path), dataset=dataset)
    assert result["dataset"] == "arrays"
    assert 0 <= result["test_accuracy"] <= 1
