"""Programs that are kept from process to process."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_run import tiny_config

from nfnet_jax.data.sources.arrays import from_arrays
from nfnet_jax.training import loop
from nfnet_jax.training import programs as kept
from nfnet_jax.training.checkpoint.manager import Checkpoints
from nfnet_jax.training.data_spec import DataFacts
from nfnet_jax.training.loop import train
from nfnet_jax.training.setup import set_up

ELABORATE = {
    "train.steps": 4,
    "train.small_size": 4,
    "train.small_share": 0.5,
    "model.drop_rate": 0.2,
    "optim.accumulate": 2,
    "optim.agc.clipping": 0.05,
    "log.gradient_ratios": True,
}


def trained(workdir, config, programs=None):
    """Leaves of the last state of a run, and its metrics."""
    expected = programs and kept.expect_programs(programs, config)
    train(config, str(workdir), programs=expected)
    with Checkpoints(str(workdir)) as checkpoints:
        state = checkpoints.restore(set_up(config).state)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    losses = [
        row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row
    ]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)], losses


@pytest.fixture
def no_tracing(monkeypatch):
    def refuse(*_):
        raise AssertionError("a program was traced")

    def begin():
        monkeypatch.setattr(kept, "_trace", refuse)
        monkeypatch.setattr(loop, "count_work", refuse)

    return begin


def test_kept_programs_are_not_traced_and_give_the_same_bits(tmp_path, no_tracing):
    config = tiny_config(**ELABORATE)
    state, losses = trained(tmp_path / "traced", config)
    cold = trained(tmp_path / "cold", config, tmp_path / "programs")
    no_tracing()
    warm = trained(tmp_path / "warm", config, tmp_path / "programs")
    assert len(losses) == 4
    for other_state, other_losses in (cold, warm):
        assert losses == other_losses
        for ours, theirs in zip(state, other_state, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def falling(state, fed):
    """A step of a state that has a class of its own."""
    height = optax.TraceState(state.trace - 0.5 * fed)
    return height, {"height": height.trace.sum()}


def fall(folder):
    """`falling` as a process that finds `folder` does it, twice."""
    step = kept.Programs(folder).keep_step("full", falling)
    state, _ = step(optax.TraceState(jnp.ones(3)), jnp.ones(3))
    return step(state, jnp.ones(3))


def assert_fallen(results):
    state, metrics = results
    np.testing.assert_array_equal(state.trace, [0, 0, 0])
    assert metrics == {"height": 0}


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 5000])
def test_damaged_program_is_traced_again(content, tmp_path, no_tracing):
    fall(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert_fallen(fall(tmp_path))
    no_tracing()
    assert_fallen(fall(tmp_path))


def test_folder_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "programs").write_text("a file")
    assert_fallen(fall(tmp_path / "programs"))


def test_a_function_is_called_with_what_it_takes(tmp_path, no_tracing):
    def scaled(arrays, by):
        return {"scaled": (arrays["a"] * by, arrays["b"] * by)}

    for _ in range(2):
        function = kept.Programs(tmp_path).keep("init", scaled)
        arrays = {"a": jnp.ones(2), "b": jnp.full(3, 2.0)}
        for by in (2.0, 3.0):
            a, b = function(arrays, jnp.float32(by))["scaled"]
            np.testing.assert_array_equal(a, [by] * 2)
            np.testing.assert_array_equal(b, [2 * by] * 3)
        no_tracing()


def test_what_was_found_is_recalled(tmp_path):
    found = {"image": 12, "steps": [1, 2]}
    assert kept.Programs(tmp_path).recall("work", lambda: found) == found
    assert kept.Programs(tmp_path).recall("work", lambda: 1 / 0) == found
    (tmp_path / "work").write_bytes(b"damaged")
    assert kept.Programs(tmp_path).recall("work", lambda: 5) == 5
    assert kept.Programs().recall("work", lambda: 6) == 6


def test_process_waits_for_what_it_loads(tmp_path):
    fall(tmp_path)
    script = """
import pathlib, sys, time, jax
from nfnet_jax.training.programs import Programs

def compile(lowered):
    time.sleep(1)
    print("loaded")

jax.stages.Lowered.compile = compile
Programs(pathlib.Path(sys.argv[1]))
sys.exit(2)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "loaded\n"), ended.stderr


FACTS = DataFacts((0.3,), (0.3,), tuple("0123456789"), (8, 8, 1))


def arrays(examples):
    split = (
        np.zeros((examples, 8, 8, 1), np.uint8),
        np.arange(examples, dtype=np.int32) % 10,
    )
    return from_arrays({"train": split, "test": split})


def test_identity_is_of_all_that_a_step_is_traced_from(monkeypatch):
    config = tiny_config()

    def identity(config=config, examples=40, facts=FACTS):
        data = kept.data_identity(arrays(examples), facts)
        return kept.run_identity(config), data

    moments = DataFacts((0.31,), (0.3,), FACTS.class_names, FACTS.image_shape)
    found = [
        identity(),
        identity(tiny_config(seed=1)),
        identity(tiny_config(**{"optim.learning_rate": 0.1})),
        identity(tiny_config(**{"optim.agc.clipping": 0.02})),
        identity(examples=50),
        identity(facts=moments),
    ]
    assert identity() == found[0]
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16")
    found.append(identity())
    monkeypatch.setattr(kept, "versions", lambda: {"jax": "0.1"})
    found.append(identity())
    monkeypatch.setattr(kept, "source_digest", lambda: "edited")
    found.append(identity())
    assert len(set(found)) == len(found)


def test_source_digest_sees_every_edit(tmp_path, monkeypatch):
    (tmp_path / "training").mkdir()
    monkeypatch.setattr(kept, "__file__", str(tmp_path / "training/programs.py"))
    files = tmp_path / "a.py", tmp_path / "training/b.py"
    found = []
    for a, b in (("1", "2"), ("1", "3"), ("12", ""), ("2", "1")):
        files[0].write_text(a)
        files[1].write_text(b)
        found.append(kept.source_digest())
    files[1].rename(tmp_path / "c.py")
    found.append(kept.source_digest())
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("mode", "devices", "backend"),
    [("pmap", 1, "cpu"), ("jit", 2, "cpu"), ("jit", 1, "gpu")],
)
def test_elsewhere_none_are_kept(mode, devices, backend, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = tiny_config(**{"parallel.mode": mode})
    programs = kept.expect_programs(tmp_path, config).of(config, arrays(40), FACTS)
    step = object()
    assert programs.keep("init", step) is step
    assert programs.keep_step("full", step) is step
    assert not list(tmp_path.iterdir())


def test_other_data_than_expected_is_not_taken_for_it(tmp_path):
    config = tiny_config()

    def step(examples, height):
        programs = kept.expect_programs(tmp_path, config)
        programs = programs.of(config, arrays(examples), FACTS)
        fall = programs.keep_step("full", lambda state, fed: (state - height, {}))
        return fall(jnp.ones(2), jnp.ones(2))[0]

    # What was kept for as many examples is taken, whatever was expected.
    for examples, height, found in ((40, 1, 0), (50, 2, -1), (40, 3, 0), (50, 4, -1)):
        np.testing.assert_array_equal(step(examples, height), [found] * 2)


def test_what_loading_raises_reaches_the_step(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no memory")

    fall(tmp_path)
    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    with pytest.raises(RuntimeError, match="no memory"):
        fall(tmp_path)
