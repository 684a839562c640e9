"""A run that begins with smaller images, and one that starts from data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.config import base_config
from nfnet_jax.models.registry import create_model
from nfnet_jax.models.statistics import multiply_adds
from nfnet_jax.training.loop import train
from nfnet_jax.training.setup import set_up
from nfnet_jax.training.timeline import make_plan
from nfnet_jax.utils.errors import UserError


def small_config(**changes):
    config = base_config()
    config.model.name = "nf_air_4"
    config.data.image_size = 16
    config.data.batch_size = 32
    config.data.augment.flip = True
    config.data.augment.alternate_flip = True
    config.train.steps = 10
    config.train.small_size = 12
    config.train.small_share = 0.6
    config.optim.name = "muon"
    config.optim.agc.exclude = ("classifier",)
    config.optim.freeze = ("stem/kernel",)
    config.log.tensorboard = False
    config.update_from_flattened_dict(changes)
    return config


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


@pytest.mark.parametrize(("share", "steps"), [(0.0, 0), (0.25, 2), (1.0, 10)])
def test_share_of_the_updates(share, steps):
    config = small_config(**{"train.small_share": share})
    assert make_plan(config, 1000, 1).small_steps == steps


def test_no_size_means_no_such_part():
    config = small_config()
    config.train.small_size = None
    assert make_plan(config, 1000, 1).small_steps == 0


def test_small_images_are_not_larger():
    with pytest.raises(UserError, match="small_size is 17, expected at most the 16"):
        set_up(small_config(**{"train.small_size": 17}))


def test_whitening_is_of_the_training_images():
    run = set_up(small_config())
    kernel = np.asarray(run.state.params["stem"]["kernel"])
    pixels = np.asarray(next(run.train.iterate(0))[0]) / 255
    mean, std = run.facts.moments
    images = jnp.asarray((pixels - mean) / std)
    outputs = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(outputs.std((0, 1, 2)), 1, atol=0.1)
