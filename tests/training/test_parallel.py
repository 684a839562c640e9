"""A run is the same on one device, on many, and in several processes."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tiny_run import metric_rows, write_config
from trajectory import CHANGES, devices, run

from nfnet_jax.config import base_config
from nfnet_jax.models.registry import create_model
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.groups import parameter_groups
from nfnet_jax.training.distributed import connect
from nfnet_jax.training.parallel import fsdp_spec
from nfnet_jax.training.state import init_state, init_variables
from nfnet_jax.utils.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
SHORT = {"train.steps": 3, "data.augment.randaugment.layers": 0}
BATCH_NORM = {
    "model.name": "bn_wrn_10_1",
    "optim.weight_decay_exclude": ("bias$", "scale$"),
    "optim.agc.exclude": ("classifier",),
}


def assert_same(losses, reference):
    np.testing.assert_allclose(losses, reference, rtol=1e-5)


@pytest.fixture(scope="module")
def alone():
    """Losses of three steps on one device, that of this process."""
    return run(SHORT, (0, 3))


def test_pmap_with_microbatches_is_the_run_on_one_device(alone):
    changes = SHORT | {"parallel.mode": "pmap", "optim.accumulate": 2}
    assert_same(devices(4, changes=changes, steps=[0, 3]), alone)


@pytest.mark.slow
def test_eight_devices_with_every_option_are_one():
    """Metrics and averaged parameters, too."""
    changes = SHORT | {
        "seed": 2,
        "data.augment.random_resized_crop": True,
        "data.augment.crop_padding": 0,
        "optim.accumulate": 2,
        "optim.sam.rho": 0.05,
        "log.gradient_ratios": True,
    }
    task = {"changes": changes, "steps": [0, 2], "details": True}
    np.testing.assert_allclose(devices(8, **task), run(**task), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_are_one_run_that_the_first_one_writes(alone, tmp_path):
    changes = CHANGES | SHORT | {"parallel.fsdp": True}
    config = write_config(tmp_path / "config.py", changes)
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "scripts/two_processes.py"),
            config,
            f"--workdir={tmp_path / 'run'}",
        ],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = metric_rows(tmp_path / "run")
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert_same(losses, alone)
    assert done.stdout.count("test accuracy") == 1
    assert json.loads((tmp_path / "run/result.json").read_text())["steps"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "processes", "changes"),
    [
        (8, 1, {}),
        (8, 1, {"parallel.fsdp": True, "optim.accumulate": 2, "optim.sam.rho": 0.05}),
        (2, 2, {}),
        (2, 2, {"parallel.mode": "pmap"}),
    ],
)
def test_twenty_steps_on_many_devices(count, processes, changes):
    """Six steps for SAM, which lets rounding grow: half a unit in the last place of the
    first weights changes its losses by 2e-5 in twenty steps on one device."""
    steps = (0, 6) if "optim.sam.rho" in changes else (0, 20)
    changes = changes | {"model.name": "nf_wrn_16_2"}
    reference = run({k: v for k, v in changes.items() if "parallel" not in k}, steps)
    assert_same(devices(count, processes, changes=changes, steps=steps), reference)


@pytest.mark.slow
def test_batch_norm_depends_on_devices_unless_statistics_are_of_the_whole_batch():
    alone = run(BATCH_NORM, (0, 5))
    assert_same(devices(8, changes=BATCH_NORM, steps=[0, 5]), alone)
    pmap = BATCH_NORM | {"parallel.mode": "pmap"}
    differences = np.abs(np.array(devices(8, changes=pmap, steps=[0, 5])) / alone - 1)
    assert differences.max() > 1e-3


@pytest.mark.slow
def test_eight_devices_are_continued_by_one_by_two_processes_and_by_pmap(tmp_path):
    alone = run(steps=(0, 6))
    changes = {"parallel.fsdp": True}
    saved = str(tmp_path / "run")
    first = devices(8, changes=changes, steps=[0, 3], save=saved)
    assert_same(first, alone[:3])
    for count, processes, changes in (
        (1, 1, {}),
        (2, 2, {"parallel.fsdp": True}),
        (8, 1, {"parallel.mode": "pmap"}),
    ):
        rest = devices(count, processes, changes=changes, steps=[3, 6], restore=saved)
        assert_same(rest, alone[3:])


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((), P()),
        ((7,), P()),
        ((16,), P("data")),
        ((3, 3, 16, 24), P(None, None, None, "data")),
        ((5, 1, 1, 64, 32), P(None, None, None, "data")),
        ((8, 8), P(None, "data")),
        ((1000, 12), P("data")),
    ],
)
def test_the_largest_axis_that_divides_is_split(shape, spec):
    assert fsdp_spec(shape, 8) == spec


def test_eight_devices_hold_an_eighth_of_an_nfnet_f0():
    """Scalars and what 8 does not divide are all that each of them has whole."""
    config = base_config()
    model = create_model("nfnet_f0", 1000)
    params, stats = jax.eval_shape(lambda: init_variables(model, 0, (64, 64, 3)))
    optimizer = build_optimizer(
        config.optim, lambda step: 0.1, parameter_groups(config.optim, params)
    )
    state = jax.eval_shape(lambda p: init_state(p, stats, optimizer), params)
    mesh = AbstractMesh((8,), ("data",))
    whole = part = 0
    for leaf in jax.tree.leaves(state):
        sharding = NamedSharding(mesh, fsdp_spec(leaf.shape, 8))
        whole += leaf.size
        part += int(np.prod(sharding.shard_shape(leaf.shape)))
    assert whole == 3 * 71_489_284 + 3
    assert part <= whole / 7.99


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("host", 2, 0), "--coordinator is 'host', expected HOST:PORT"),
        (("host:1", None, 0), "--processes is missing with --coordinator=host:1, exp"),
        (("host:1", 2, 2), "--process is 2, expected less than --processes=2"),
        (("auto", 2, None), "--processes=2 with --coordinator=auto, expected"),
        ((None, None, 1), "--process=1 with no coordinator, expected"),
    ],
)
def test_flags_of_processes_that_do_not_fit_are_refused(flags, words):
    with pytest.raises(UserError, match=words):
        connect(*flags)
