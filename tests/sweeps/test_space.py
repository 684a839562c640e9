"""Spaces of sweeps, made from flags."""

import math

import optuna
import pytest
from optuna import distributions
from optuna.trial import FixedTrial

from nfnet_jax.sweeps.space import make_space
from nfnet_jax.utils.errors import UserError


def test_a_grid_is_every_combination_in_order():
    grid = ["config.optim.learning_rate=0.05,0.1,0.2", "optim.agc.clipping=0.01,0"]
    space = make_space(grid, [], None, None)
    expected = [
        {"optim.learning_rate": rate, "optim.agc.clipping": clipping}
        for rate in (0.05, 0.1, 0.2)
        for clipping in (0.01, 0)
    ]
    assert space.planned() == expected


def test_values_are_numbers_truth_values_or_texts():
    grid = ["optim.schedule.name=cosine,linear", "optim.nesterov=True,False"]
    grid += ["optim.schedule.boundaries=(0.5, 0.75),(0.3,0.9)"]
    points = make_space(grid, [], None, None).planned()
    assert points[0]["optim.schedule.name"] == "cosine"
    assert [p["optim.nesterov"] for p in points[:4:2]] == [True, False]
    boundaries = [p["optim.schedule.boundaries"] for p in points[:2]]
    assert boundaries == ["(0.5, 0.75)", "(0.3,0.9)"]


def test_ranges_are_asked_of_the_sampler():
    samples = [
        "config.optim.learning_rate=log:0.01:1",
        "optim.momentum=uniform:0.5:0.99",
        "data.batch_size=log:16:256",
        "optim.name=sgd,adamw",
    ]
    space, trial = make_space([], samples, 7, None), optuna.create_study().ask()
    assert space.planned() == [{}] * 7
    assert space.suggest(trial) == trial.params
    assert trial.distributions == {
        "optim.learning_rate": distributions.FloatDistribution(0.01, 1.0, log=True),
        "optim.momentum": distributions.FloatDistribution(0.5, 0.99),
        "data.batch_size": distributions.IntDistribution(16, 256, log=True),
        "optim.name": distributions.CategoricalDistribution(("sgd", "adamw")),
    }


def test_logarithmic_draws_are_uniform_in_the_logarithm():
    space = make_space([], ["optim.learning_rate=log:0.01:1"], 1, None)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    draws = [space.suggest(study.ask())["optim.learning_rate"] for _ in range(2000)]
    below = sum(draw < 0.1 for draw in draws)
    # Half of them, within three standard deviations of a binomial.
    assert abs(below - 1000) < 3 * math.sqrt(2000 / 4)


def test_a_function_of_the_user_sets_what_it_returns():
    def sweep(trial):
        return {"config.model.name": f"nf_wrn_16_{trial.suggest_int('width', 1, 4)}"}

    space = make_space(["optim.momentum=0.8,0.9"], [], 2, sweep)
    assert len(space.planned()) == 4
    trial = FixedTrial({"width": 2, "optim.momentum": 0.8})
    expected = {"optim.momentum": 0.8, "model.name": "nf_wrn_16_2"}
    assert space.suggest(trial) == expected
    with pytest.raises(UserError, match="unknown config key 'optim.lr'.*learning_rate"):
        make_space([], [], 1, lambda trial: {"optim.lr": 1}).suggest(trial)
    with pytest.raises(UserError, match="returned list, expected a dict"):
        make_space([], [], 1, lambda trial: []).suggest(trial)


@pytest.mark.parametrize(
    ("grids", "samples", "trials", "message"),
    [
        ([], [], None, "nothing to vary"),
        (["optim.lr=1"], [], None, "did you mean 'optim.learning_rate'"),
        (["optim.momentum"], [], None, "expected --grid config.optim.momentum=A,B,C"),
        (["optim.momentum=0.1,"], [], None, "expected different values"),
        (["optim.momentum=0.1,0.1"], [], None, "expected different values"),
        (["optim.momentum=0.1"], [], 3, "with a grid alone"),
        (["optim.momentum=0.1"], ["optim.momentum=0.2"], 1, "varied twice"),
        ([], ["optim.momentum=0.1,0.2"], None, "--trials is missing"),
        ([], ["optim.momentum=lg:1:2"], 1, "did you mean 'log'"),
        ([], ["optim.momentum=uniform:1"], 1, "expected two numbers"),
        ([], ["optim.momentum=uniform:2:1"], 1, "expected LOW < HIGH"),
        ([], ["optim.momentum=log:0:1"], 1, "expected 0 < LOW < HIGH"),
        ([], ["optim.momentum=log:1:inf"], 1, "expected 0 < LOW < HIGH"),
        ([], ["data.batch_size=log:1:2.5"], 1, "is a whole number"),
    ],
)
def test_malformed_sweeps_are_refused_in_one_line(grids, samples, trials, message):
    with pytest.raises(UserError, match=message) as error:
        make_space(grids, samples, trials, None)
    assert "\n" not in str(error.value)
