"""Whole runs, programs and first states that these tests share."""

import functools
import json

import jax
import pytest
from tiny_run import UNDISTURBED, tiny_config

from nfnet_jax.config import to_json
from nfnet_jax.training import loop
from nfnet_jax.training.experiment import Experiment


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Work directory of a tiny run of 16 steps, with a checkpoint of every step.

    A run of fewer steps passes through the same states.
    """
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    loop.train(tiny_config(**UNDISTURBED), str(workdir))
    return workdir


@pytest.fixture
def replace_updates(build_once, monkeypatch):
    """replace_updates(call): updates of later runs are `call(update, state, fed)`."""
    make_train_step = Experiment.make_train_step

    def replace(call):
        def make(*arguments, **options):
            return functools.partial(call, make_train_step(*arguments, **options))

        monkeypatch.setattr(Experiment, "make_train_step", make)

    return replace


@pytest.fixture(scope="session")
def built():
    """Parts of experiments, by their names and all that they depend on."""
    return {}


@pytest.fixture(autouse=True)
def build_once(built, monkeypatch):
    """Equal runs are assembled and traced once a session, not in every test."""

    def identity(run: Experiment) -> str:
        values = to_json(run.config)
        for section in ("name", "checkpoint", "eval"):
            del values[section]
        ratios = values.pop("log")["gradient_ratios"]
        splits = [len(run.dataset.train), len(run.dataset.test)]
        return json.dumps([values, ratios, splits, str(run.data_spec)])

    def share(name, build):
        def get(run, *arguments, **options):
            if run.pretrained or options.keys() - {"image_size"}:
                return build(run, *arguments, **options)
            key = (name, identity(run), str(options))
            if key not in built:
                built[key] = build(run, *arguments, **options)
            return built[key]

        return get

    for name in ("eval_step", "work"):
        build = vars(Experiment)[name].func
        monkeypatch.setattr(Experiment, name, property(share(name, build)))
    make = share("step", Experiment.make_train_step)
    monkeypatch.setattr(Experiment, "make_train_step", make)

    build_start = vars(Experiment)["_start"].func

    def start_on_host(run):
        state, origin = build_start(run)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        return jax.device_get(state), shardings, origin

    def start(run):
        # Training gives the memory of its state away.
        state, shardings, origin = share("start", start_on_host)(run)
        return jax.device_put(state, shardings), origin

    monkeypatch.setattr(Experiment, "_start", property(start))
