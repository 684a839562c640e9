"""One update: independent of microbatches, devices and the host."""

import json
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nfnet_jax.config import base_config
from nfnet_jax.models.registry import create_model
from nfnet_jax.optim.build import build_optimizer
from nfnet_jax.training.sharding import DeviceData
from nfnet_jax.training.state import init_state, init_variables
from nfnet_jax.training.step import (
    make_draw_batch,
    make_eval_step,
    make_train_step,
)

RNG = np.random.RandomState(0)
DATA = DeviceData(
    images=jnp.asarray(RNG.randint(0, 256, (48, 8, 8, 1)), "uint8"),
    labels=jnp.asarray(RNG.randint(0, 10, 48), "int32"),
    mean=jnp.full(1, 0.5),
    std=jnp.full(1, 0.25),
)


def setup(**changes):
    config = base_config()
    config.data.batch_size = 16
    config.model.name = "nf_wrn_10_1"
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    model = create_model(config.model.name, 10)
    params, stats = init_variables(model, 0, (8, 8, 1))
    optimizer = build_optimizer(config.optim, params, lambda step: 0.1)
    step = make_train_step(config, model, optimizer)
    return config, model, step, init_state(params, stats, optimizer)


def test_first_loss_is_that_of_a_guess():
    _, _, step, state = setup()
    _, metrics = step(state, DATA)
    assert float(metrics["loss"]) == pytest.approx(np.log(10), abs=0.2)


def test_a_batch_can_be_learned_by_heart():
    config, model, step, state = setup(**{"data.batch_size": 48})
    for _ in range(60):
        state, metrics = step(state, DATA)
    assert float(metrics["loss"]) < 0.1
    sums = make_eval_step(config, model)({"params": state.params}, DATA, 0)
    assert int(sums["correct"]) == 48


EVERYTHING = {
    "train.mixup": 0.2,
    "train.cutmix": True,
    "data.augment.randaugment.layers": 2,
    "data.augment.random_resized_crop": True,
    "data.augment.flip": True,
    "data.augment.erasing": 0.5,
}


def test_an_images_fate_depends_on_its_position_alone():
    """Two batches of 8 are the batch of 16 at the same positions, bit for bit."""
    batches = {}
    for size in (8, 16):
        config = setup(**EVERYTHING, **{"data.batch_size": size})[0]
        draw = jax.jit(make_draw_batch(config, 10))
        batches[size] = [draw(jnp.array(step), DATA) for step in range(16 // size)]
    for i in range(2):
        parts = [batch[i] for batch in batches[8]]
        np.testing.assert_array_equal(np.concatenate(parts), batches[16][0][i])


def test_targets_are_mixed_and_the_loss_is_of_them():
    changes = {"train.cutmix": True, "train.label_smoothing": 0.1}
    config, model, step, state = setup(**changes)
    images, targets = make_draw_batch(config, 10)(jnp.array(0), DATA)
    targets = np.asarray(targets, float)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    assert np.mean((targets > 0.01).sum(1) == 2) > 0.5
    logits = np.asarray(model.apply({"params": state.params}, images), float)
    smooth = 0.9 * targets + 0.01
    log_sums = np.log(np.exp(logits).sum(1, keepdims=True))
    expected = (smooth * (log_sums - logits)).sum(1).mean()
    _, metrics = step(state, DATA)
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)


def test_an_epoch_of_pairs_shows_every_example_once():
    labels = jnp.arange(48, dtype=jnp.int32)
    data = DATA._replace(labels=labels)
    config = setup(**{"train.mixup": 1.0, "data.batch_size": 24})[0]
    _, targets = make_draw_batch(config, 48)(jnp.array(0), data)
    assert np.all(np.asarray(targets).sum(0) > 0)


def test_microbatches_give_the_update_of_the_whole_batch():
    augment = {"data.augment.crop_padding": 2, "data.augment.cutout": 3}
    _, _, whole, state = setup(**augment)
    _, _, parts, same = setup(**augment, **{"optim.accumulate": 4})
    for _ in range(2):
        state, metrics = whole(state, DATA)
        same, same_metrics = parts(same, DATA)
    chex.assert_trees_all_close(state.params, same.params, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(metrics, same_metrics, rtol=1e-4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_norm_baseline_updates_its_running_statistics(accumulate):
    """The stem is linear, so its output's moments are known from the parameters."""
    _, model, step, state = setup(
        **{
            "model.name": "bn_wrn_10_1",
            "optim.accumulate": accumulate,
            "optim.learning_rate": 0.0,
            "optim.weight_decay_exclude": ("bias$", "scale$"),
            "optim.agc.exclude": ("classifier",),
            "data.batch_size": 48,
        }
    )
    images = (np.asarray(DATA.images, np.float32) / 255 - 0.5) / 0.25
    stem = model.stem.apply({"params": state.params["stem"]}, images)
    variance = np.asarray(stem, float).var((0, 1, 2))
    state, metrics = step(state, DATA)
    stats = state.batch_stats["stages_0"]["transition"]["BatchNorm_0"]
    remaining = 0.9**accumulate
    expected = remaining + (1 - remaining) * variance
    assert np.abs(expected - 1).max() > 0.1
    # Halves of the batch have nearly the variance of the whole.
    tolerance = 1e-5 if accumulate == 1 else 5e-3
    np.testing.assert_allclose(stats["var"], expected, atol=tolerance)
    assert np.isfinite(float(metrics["loss"]))


def test_nothing_crosses_to_the_host_in_the_loop():
    _, _, step, state = setup()
    state, _ = step(state, DATA)
    with jax.transfer_guard("disallow"):
        state, _ = step(state, DATA)


def test_evaluation_counts_every_example_once():
    config, model, _, state = setup(**{"data.eval_batch_size": 20})
    eval_step = make_eval_step(config, model)
    sums = [eval_step({"params": state.params}, DATA, start) for start in (0, 20, 40)]
    images = (np.asarray(DATA.images, np.float32) / 255 - 0.5) / 0.25
    logits = model.apply({"params": state.params}, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, DATA.labels)
    total = sum(float(s["loss"]) for s in sums)
    assert total == pytest.approx(float(losses.sum()), rel=1e-5)
    right = np.sum(np.argmax(logits, -1) == DATA.labels)
    assert sum(int(s["correct"]) for s in sums) == right


PROGRAM = """
import json, sys, jax, numpy as np
from tests_training_step import DATA, EVERYTHING, setup
crops = {"data.augment.crop_padding": 2}
changes = EVERYTHING if sys.argv[1] == "everything" else crops
from nfnet_jax.training.sharding import device_mesh, replicate
_, _, step, state = setup(**changes)
mesh = device_mesh()
state, data = replicate(state, mesh), replicate(DATA, mesh)
for _ in range(2):
    state, metrics = step(state, data)
sums = [float(np.abs(leaf).sum()) for leaf in jax.tree.leaves(state.params)]
print(json.dumps([float(metrics["loss"]), *sums]))
"""


@pytest.mark.parametrize("augmentation", ["crops", "everything"])
def test_the_result_does_not_depend_on_the_number_of_devices(augmentation, tmp_path):
    (tmp_path / "tests_training_step.py").symlink_to(os.path.abspath(__file__))
    results = []
    for devices in (1, 4):
        environment = os.environ | {
            "JAX_NUM_CPU_DEVICES": str(devices),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, augmentation],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        results.append(json.loads(done.stdout))
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-7)
