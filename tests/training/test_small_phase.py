"""A run that begins with smaller images, and one that starts from data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import tiny_config

from nfnet_jax.models.registry import create_model
from nfnet_jax.models.statistics import multiply_adds
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.loop import train
from nfnet_jax.training.timeline import make_timeline
from nfnet_jax.utils.errors import UserError


def small_config(**changes):
    options = {
        "model.name": "nf_air_4",
        "data.image_size": 16,
        "data.batch_size": 32,
        "data.augment.flip": True,
        "data.augment.alternate_flip": True,
        "train.steps": 10,
        "train.small_size": 12,
        "train.small_share": 0.6,
        "optim.name": "muon",
        "optim.learning_rate": 0.1,
        "optim.agc.exclude": ("classifier",),
        "optim.freeze": ("stem/kernel",),
    }
    return tiny_config(**options | changes)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    # Muon's other part is optax's Adam, which promotes.
    with jax.numpy_dtype_promotion("standard"):
        return train(small_config(), str(tmp_path_factory.mktemp("run")))


def test_cost_is_that_of_the_sizes_seen(result):
    model = create_model("nf_air_4", 10)
    small, large = (multiply_adds(model, (side, side, 1)) for side in (12, 16))
    stem = [(side - 1) ** 2 * 4 * 8 for side in (12, 16)]
    macs = 6 * (3 * small - 2 * stem[0]) + 4 * (3 * large - 2 * stem[1])
    assert result["train_flops"] == 2 * 32 * macs


def test_run_learns(result):
    assert result["test_loss"] < np.log(10) - 0.1


@pytest.mark.parametrize(
    ("size", "share", "steps"),
    [(12, 0.0, 0), (12, 0.25, 2), (12, 1.0, 10), (None, 1.0, 0)],
)
def test_share_of_the_updates(size, share, steps):
    config = small_config(**{"train.small_share": share})
    config.train.small_size = size
    assert make_timeline(config, 1000, 1).small_steps == steps


def test_small_images_are_not_larger():
    with pytest.raises(UserError, match="small_size is 17, expected at most the 16"):
        _ = Experiment(small_config(**{"train.small_size": 17})).dataset


def test_whitening_is_of_the_training_images():
    run = Experiment(small_config())
    kernel = np.asarray(run.state.params["stem"]["kernel"])
    pixels = np.asarray(next(run.train_batches.iterate(0))[0]) / 255
    mean, std = run.data_spec.moments
    images = jnp.asarray((pixels - mean) / std)
    outputs = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(outputs.std((0, 1, 2)), 1, atol=0.1)
