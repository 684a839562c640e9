"""Terminal output of a run: rates, times left, a bar or lines, a summary."""

import io
import itertools
import math
import re
from unittest import mock

import pytest
from tiny_run import tiny_config

from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.flops import Work
from nfnet_jax.training.logging.console import Progress, Stopwatch, flop, summarize
from nfnet_jax.training.timeline import make_timeline

TRAIN = {"train/loss": 1.25, "train/accuracy": 0.5, "epoch": 2.0}
SCORES = {"accuracy": 0.75, "accuracy_ema": 0.5, "loss": 1.5, "loss_ema": 2.5}


@pytest.fixture
def clock():
    """A clock whose hand is moved: its seconds are `now`."""
    clock = mock.Mock(now=100.0)
    clock.side_effect = lambda: clock.now
    return clock


def make_watch(clock, *, small_steps=0, steps=100, eval_every=40):
    """Stopwatch of batches of 8 images; small ones take 1 operation, full ones 4."""
    config = tiny_config(**{"train.steps": steps, "data.batch_size": 8})
    config.eval.every_epochs = eval_every / 10
    plan = make_timeline(config, train_examples=80, devices=1)
    assert (plan.steps, plan.eval_every) == (steps, eval_every)
    work = Work(image=1, small=1, full=4, small_steps=small_steps)
    return Stopwatch(8, work, plan, clock)


def test_evaluations_do_not_slow_the_rate_but_take_time(clock):
    watch = make_watch(clock)
    assert math.isnan(watch.images_per_second) and math.isnan(watch.seconds_left(0))
    watch.lap(5)
    watch.start(1)
    clock.now += 20
    watch.lap(41)
    assert watch.images_per_second == 40 * 8 / 20
    assert watch.seconds_left(41) == 59 / 2
    with watch.evaluating(41):
        clock.now += 7
    clock.now += 5
    watch.stop(51)
    clock.now += 1000
    assert (watch.steps, watch.seconds) == (50, 25)
    assert watch.images_per_second == 16
    # After steps 80 and 100.
    assert watch.seconds_left(51) == pytest.approx(49 / 2 + 2 * 7)
    assert watch.seconds_left(90) == pytest.approx(10 / 2 + 7)


def test_steps_on_smaller_images_are_a_smaller_part_of_the_time_left(clock):
    watch = make_watch(clock, small_steps=60)
    watch.start(0)
    clock.now += 10
    watch.lap(20)
    assert watch.seconds_left(20) == pytest.approx((40 * 1 + 40 * 4) * 10 / 20)
    clock.now += 40
    watch.lap(70)
    assert watch.seconds_left(70) == pytest.approx(30 * 4 * 50 / (60 + 10 * 4))


def test_the_rate_is_right_though_steps_are_known_late(clock):
    watch = make_watch(clock)
    watch.start(0)
    clock.now += 20
    watch.lap(10)
    assert watch.recent_images_per_second == 4
    # 20 steps a second from here on; what is known is ten steps behind.
    for step in (20, 30, 40):
        clock.now += 0.5
        watch.behind(step - 10)
        assert watch.recent_images_per_second == (4 if step == 20 else 160)
    clock.now += 0.5
    assert watch.seconds_left(40) == pytest.approx(60 / 20)
    watch.stop(50)
    assert watch.images_per_second == 50 * 8 / 22


def test_lines_where_there_is_no_terminal(clock, capsys):
    watch = make_watch(clock)
    with Progress(watch, first_step=0, steps=100) as progress:
        assert not progress.measuring
        watch.start(1)
        for step in range(2, 13):
            clock.now += 0.5
            progress.advance(step)
            if progress.measuring:
                progress.measure(step)
        progress.show_training(12, TRAIN)
        progress.show_test(12, SCORES)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "16 images/s in the first 10 steps that were measured: 00:44 left, "
        "and evaluations",
        "step 12/100  loss 1.2500  accuracy 50.00%  16 images/s  epoch 2.00  00:44 "
        "left",
        "step 12/100  test: accuracy 75.00% (EMA 50.00%)  loss 1.5000 (EMA 2.5000)",
    ]
    assert err == ""


def test_slow_steps_are_measured_for_ten_seconds_only(clock, capsys):
    watch = make_watch(clock)
    with Progress(watch, first_step=0, steps=100) as progress:
        watch.start(1)
        told = []
        for step in (2, 3, 4):
            clock.now += 6
            progress.measure(step)
            told.append(progress.measuring)
    assert told == [True, False, False]
    assert "in the first 2 steps" in capsys.readouterr().out


def test_a_bar_on_a_terminal(clock, monkeypatch, capsys):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    watch = make_watch(clock)
    with Progress(watch, first_step=20, steps=100) as progress:
        watch.start(20)
        clock.now += 1
        watch.lap(30)
        progress.advance(30)
        progress.show_training(30, TRAIN)
        progress.show_test(30, SCORES)
        progress.advance(25)
        progress.advance(100)
    shown = terminal.getvalue()
    assert "20/100" in shown and "100/100" in shown and "step/s" in shown
    assert "loss 1.2500, accuracy 50.00%, 80 images/s" in shown
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 30/100"]


def test_the_summary_tells_what_the_result_will(capsys):
    config = tiny_config(**{"train.small_size": 4, "data.augment.flip": True})
    run = Experiment(config)
    work = run.work
    sections = dict(re.findall(r"^(\w+) +(.*)", summarize(run), re.M))
    assert "nf_wrn_10_1: 78,045 parameters" in sections["model"]
    # 3x3 convolutions of 8x8, 4x4 and 2x2 images dominate: see tests/models.
    assert sections["model"].endswith(f"{flop(2 * work.image)} an image")
    assert sections["data"] == (
        "digits: 1,438 training and 359 test images of 8x8x1, 10 classes"
    )
    assert work.small_steps == 20 and work.small < work.full == 6 * 16 * work.image
    assert sections["training"] == (
        f"40 steps of 16 images, 0.4451 epochs, "
        f"{flop(20 * work.small + 20 * work.full)}"
    )
    assert sections["optimizer"] == "sgd at a peak rate of 0.05"
    assert sections["devices"] == "1 x cpu, float32, jit"


@pytest.mark.parametrize(
    ("operations", "text"),
    [(999, "999 FLOP"), (1.5e6, "1.50 MFLOP"), (2.04e15, "2.04 PFLOP")],
)
def test_operations_are_readable(operations, text):
    assert flop(operations) == text


def test_work_between_two_steps_adds_up():
    work = Work(image=1, small=3, full=10, small_steps=4)
    updates = [3] * 4 + [10] * 5
    for start, end in itertools.combinations_with_replacement(range(10), 2):
        assert work.between(start, end) == sum(updates[start:end])
