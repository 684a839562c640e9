"""Losses that are not finite: stop, skip or rewind."""

import itertools
import math
import os
import signal
from types import SimpleNamespace
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import last_state, metric_rows, state_at, tiny_config

from nfnet_jax.training import loop, step
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.logging import Diverged, Reporter
from nfnet_jax.utils.errors import Interrupted, UserError

NAN = float("nan")
REWIND = {
    "train.steps": 12,
    "train.on_nan": "rewind",
    "checkpoint.every_steps": 4,
    "checkpoint.keep": 10,
}


# --- Skip -----------------------------------------------------------------------------


@pytest.fixture
def one_bad_batch(built, monkeypatch):
    """The images of batch number 3 are nan, in programs that no other test gets."""
    others = dict(built)
    built.clear()
    augment_batch = step.augment_batch

    def spoil(batch, *arguments):
        images, targets = augment_batch(batch, *arguments)
        bad = batch.example_ids[0] == 3 * len(targets)
        return jnp.where(bad, NAN, images), targets

    monkeypatch.setattr(step, "augment_batch", spoil)
    yield
    built.clear()
    built.update(others)


def test_a_bad_batch_changes_nothing_but_the_step(one_bad_batch, tmp_path):
    options = {"train.steps": 6, "checkpoint.every_steps": 1, "checkpoint.keep": 10}
    config = tiny_config(**options, **{"train.on_nan": "skip"})
    result = loop.train(config, str(tmp_path))
    assert math.isfinite(result["test_loss"])
    states = {}
    for number in (6, 5, 4, 3, 2):
        states[number] = last_state(tmp_path)
        (tmp_path / f"checkpoints/{number}/manifest.json").unlink()
    assert all(int(state.step) == number for number, state in states.items())
    before = states[3].replace(step=states[4].step)
    jax.tree.map(np.testing.assert_array_equal, states[4], before)
    for one, other in ((2, 3), (4, 5), (5, 6)):
        kernels = [states[n].params["stem"]["kernel"] for n in (one, other)]
        assert np.isfinite(kernels).all() and (kernels[0] != kernels[1]).any()
    rows = metric_rows(tmp_path)
    skipped = {row["step"]: row["train/skipped"] for row in rows if "epoch" in row}
    assert skipped == {1: 0, 2: 0, 3: 0, 4: 1, 5: 0, 6: 0}


def reporter(config):
    writer = SimpleNamespace(rows=[])
    writer.write = lambda step, row: writer.rows.append(row)
    return Reporter(Experiment(config), writer, MagicMock()), writer


def test_means_are_of_what_was_not_skipped():
    report, writer = reporter(tiny_config())
    for number, loss in enumerate([1.0, NAN, 2.0], start=1):
        skipped = float(math.isnan(loss))
        report.add(number, {"loss": loss, "grad_norm": loss, "skipped": skipped})
    report.flush()
    assert writer.rows[0]["train/loss"] == 1.5
    assert writer.rows[0]["train/skipped"] == pytest.approx(1 / 3)


def test_a_hundred_bad_batches_in_a_row_end_the_run():
    report, _ = reporter(tiny_config())
    bad = {"loss": NAN, "grad_norm": NAN, "skipped": 1.0}
    good = {"loss": 1.0, "grad_norm": 1.0, "skipped": 0.0}
    for number, metrics in enumerate([*[bad] * 99, good, *[bad] * 99], start=1):
        report.add(number, metrics)
    report.flush()
    report.add(200, bad)
    with pytest.raises(Diverged, match="100 updates skipped in a row; step 200: the"):
        report.flush()


@pytest.mark.parametrize(
    "metrics", [{"loss": NAN, "grad_norm": 1.0}, {"loss": 1.0, "grad_norm": math.inf}]
)
def test_neither_loss_nor_gradient_may_be_without_bounds(metrics):
    report, _ = reporter(tiny_config())
    report.add(1, metrics)
    with pytest.raises(Diverged, match="step 1: the loss is") as error:
        report.flush()
    assert error.value.step == 1


# --- Rewind ---------------------------------------------------------------------------


@pytest.fixture
def spoil(replace_updates):
    """spoil(numbers): updates by the batches of these numbers give nan."""

    def spoil(numbers, interrupt=None):
        def call(update, state, fed):
            number = int(state.batch_index)
            if number == interrupt:
                os.kill(os.getpid(), signal.SIGTERM)
            state, metrics = update(state, fed)
            if number in numbers:
                broken = jax.tree.map(lambda leaf: leaf * NAN, state.params)
                state = state.replace(params=broken)
                metrics = metrics | {"loss": jnp.asarray(NAN)}
            return state, metrics

        replace_updates(call)

    return spoil


def without_batches(config, workdir, start: int, skipped: int):
    """From the checkpoint of step `start` to the end, `skipped` batches left out."""
    run = Experiment(config)
    state = state_at(workdir, start).replace(skipped=jnp.int32(skipped))
    feed = run.train_batches.iterate(start + skipped)
    for fed in itertools.islice(feed, config.train.steps - start):
        state, _ = run.train_step(state, fed)
    return state


def test_a_rewound_run_leaves_out_the_batches_up_to_the_bad_one(
    spoil, tmp_path, capsys
):
    config = tiny_config(**REWIND)
    spoil({5})
    loop.train(config, str(tmp_path / "run"))
    told = "step 6: loss or gradient are not finite; back to step 4, leaving out 2 "
    assert told in capsys.readouterr().err
    final = last_state(tmp_path / "run")
    assert (int(final.step), int(final.skipped)) == (12, 2)

    # Stopped on its way, it comes to the same end.
    spoil({5}, interrupt=8)
    with pytest.raises(Interrupted):
        loop.train(config, str(tmp_path / "stopped"))
    spoil({5})
    loop.train(config, str(tmp_path / "stopped"))
    stopped = last_state(tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, stopped, final)

    expected = without_batches(config, tmp_path / "run", start=4, skipped=2)
    jax.tree.map(np.testing.assert_array_equal, final, expected)


def test_without_a_checkpoint_it_goes_back_to_the_start(spoil, tmp_path):
    config = tiny_config(**REWIND)
    spoil({1, 8})
    loop.train(config, str(tmp_path))
    final = last_state(tmp_path)
    # Batches 0 and 1, then 6 to 8: the checkpoint of step 4 was made by 2 to 5.
    assert (int(final.step), int(final.skipped)) == (12, 5)


def test_three_rewinds_in_a_row_are_enough(spoil, tmp_path):
    spoil(range(5, 1000))
    with pytest.raises(UserError, match="rewound 3 times to step 4 before"):
        loop.train(tiny_config(**REWIND), str(tmp_path))
    assert int(last_state(tmp_path).step) == 4
