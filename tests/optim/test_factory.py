"""The optimizer of a config against updates by hand."""

import jax
import numpy as np
import optax
import pytest

from nfnet_jax.config import KEYS, base_config
from nfnet_jax.optim.agc import adaptive_gradient_clipping
from nfnet_jax.optim.factory import OPTIMIZERS, build_optimizer
from nfnet_jax.optim.groups import USUAL, describe_groups, parameter_groups
from nfnet_jax.optim.rules import scale_by_layer_trust_ratio, scale_to_weights
from nfnet_jax.optim.schedules import SCHEDULES, update_ema, warmup_then
from nfnet_jax.utils.errors import UserError

PARAMS = {
    "stem": {"kernel": np.full((3, 2), 2.0, np.float32), "bias": np.ones(2, "f")},
    "skip": {"skip_gain": np.float32(0)},
    "head": {"classifier": {"kernel": np.ones((2, 4), "f"), "bias": np.ones(4, "f")}},
}
GRADS = jax.tree.map(lambda p: np.full_like(p, 3.0), PARAMS)
OFF = {"optim.weight_decay": 0.0, "optim.agc.clipping": 0.0}


def configured(**changes):
    config = base_config()
    config.update_from_flattened_dict(changes)
    return config


def built(config):
    groups = parameter_groups(config.optim, PARAMS)
    return build_optimizer(config.optim, lambda step: 0.1, groups)


def test_the_config_offers_every_optimizer_and_schedule():
    assert KEYS["optim.name"].choices == tuple(OPTIMIZERS)
    assert sorted(KEYS["optim.schedule.name"].choices) == sorted(SCHEDULES)


def test_group_table_counts_what_is_covered():
    table = describe_groups(base_config().optim, PARAMS)
    assert "weight_decay 0.0005: 2 arrays, 14 of 21 parameters" in table
    assert "agc 0.1: 2 arrays, 8 of 21 parameters" in table


def test_a_pattern_that_matches_nothing_is_an_error():
    config = configured(**{"optim.agc.exclude": ("clasifier",)})
    with pytest.raises(UserError, match="optim.agc.exclude: 'clasifier'.*'classifier'"):
        built(config)


def test_defaults_may_match_nothing_and_no_other_pattern_may():
    """Not every network has gains or biases."""
    params = {"conv": {"kernel": np.ones((3, 2), "f")}}
    config = base_config()
    assert USUAL["weight_decay"] == KEYS["optim.weight_decay_exclude"].default
    assert USUAL["agc"] == KEYS["optim.agc.exclude"].default
    groups = parameter_groups(config.optim, params)
    assert groups.weight_decay == groups.agc == {"conv": {"kernel": True}}
    assert "agc 0.1: 1 arrays, 6 of 6 parameters; exempt: none" in describe_groups(
        config.optim, params
    )
    for key in ("optim.weight_decay_exclude", "optim.agc.exclude", "optim.freeze"):
        for pattern in ("scale$", "conv/bias$", "skip_gain$", "stem"):
            config = configured(**{key: (*KEYS[key].default, pattern)})
            with pytest.raises(UserError, match=rf"{key}: '.*' matches no parameter"):
                parameter_groups(config.optim, params)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        (
            {"optim.agc.exclude": ("[classifier,skip_gain]",)},
            "optim.agc.clipping",
            ["optim.agc.clipping is 0.1", "('[classifier,skip_gain]',)", "=0 turns"],
        ),
        (
            {"optim.freeze": ("stem",)},
            "optim.agc.clipping",
            ["optim.agc.exclude=('classifier', 'skip_gain')", "freeze=('stem',)"],
        ),
        (
            {"optim.weight_decay_exclude": ("[biasgn]$", "kernel")},
            "optim.weight_decay",
            ["optim.weight_decay is 0.0005", "('[biasgn]$', 'kernel')"],
        ),
        (
            {"optim.freeze": ("kernel",)},
            "optim.weight_decay",
            ["optim.weight_decay is 0.0005", "('kernel',)"],
        ),
    ],
)
def test_a_treatment_that_covers_nothing_is_an_error_unless_it_is_off(
    changes, key, words
):
    built(configured(**OFF | changes))
    with pytest.raises(UserError) as error:
        built(configured(**OFF | changes | {key: KEYS[key].default}))
    for word in words:
        assert word in str(error.value) and "\n" not in str(error.value)


def test_only_what_is_called_classifier_is_the_classifier():
    names = ("classifier", "pre_classifier", "classifiers", "body")
    params = {name: {"kernel": np.ones((2, 2), "f")} for name in names}
    config = configured(**{"optim.body_rate": 0.1})
    body = parameter_groups(config.optim, params).body_rate
    assert body == {name: {"kernel": name != "classifier"} for name in names}


@pytest.mark.promotes
@pytest.mark.parametrize(
    "transformation",
    [
        adaptive_gradient_clipping(0.1),
        scale_by_layer_trust_ratio(),
        scale_to_weights(),
        *(built(configured(**OFF, **{"optim.name": name})) for name in OPTIMIZERS),
    ],
    ids=["agc", "trust ratio", "muon's norm", *OPTIMIZERS],
)
def test_without_parameters_the_message_is_optaxs_own(transformation):
    def message(transformation):
        with pytest.raises(ValueError) as error:
            transformation.update(GRADS, transformation.init(PARAMS))
        return str(error.value)

    assert message(transformation) == message(
        optax.chain(optax.adaptive_grad_clip(0.1))
    )


def test_clipping_before_a_sign_like_optimizer_is_warned_of():
    config = base_config()
    assert "warning" not in describe_groups(config.optim, PARAMS)
    config.optim.name = "lamb"
    warning = describe_groups(config.optim, PARAMS).splitlines()[-1]
    assert "warning: optim.agc.clipping is 0.1 with optim.name 'lamb'" in warning
    config.optim.agc.clipping = 0.0
    assert "warning" not in describe_groups(config.optim, PARAMS)


@pytest.mark.promotes
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_get_no_update_and_no_state(name):
    decay = {"optim.weight_decay": 0.5, "optim.name": name}
    optimizer = built(configured(**OFF | decay, **{"optim.freeze": ("stem",)}))
    state = optimizer.init(PARAMS)
    assert not any(leaf.shape == (3, 2) for leaf in jax.tree.leaves(state))
    updates, _ = optimizer.update(GRADS, state, PARAMS)
    assert not np.any(updates["stem"]["kernel"]) and not np.any(updates["stem"]["bias"])
    assert np.all(updates["head"]["classifier"]["kernel"])


def test_ema_warms_up_and_then_follows_its_decay():
    ema, params = {"w": np.float32(1.0)}, {"w": np.float32(0.0)}
    assert update_ema(ema, params, 0, 0.9)["w"] == pytest.approx(0.1)
    assert update_ema(ema, params, 40, 0.9)["w"] == pytest.approx(41 / 50)
    assert update_ema(ema, params, 10_000, 0.9)["w"] == pytest.approx(0.9)
    assert update_ema(ema, params, 10_000, 0.0)["w"] == 0


@pytest.mark.parametrize(
    "name, middle, last",
    [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1.0, 1.0)],
)
def test_schedules_at_their_landmarks(name, middle, last):
    schedule = warmup_then(name, 2.0, 9, 109, 0.1)
    np.testing.assert_allclose(schedule(0), 2 * 0.1, rtol=1e-6)
    np.testing.assert_allclose(schedule(9), 2.0, rtol=1e-6)
    np.testing.assert_allclose(schedule(59), 2 * middle, rtol=1e-6)
    np.testing.assert_allclose(schedule(109), 2 * last, rtol=1e-5)
    np.testing.assert_allclose(schedule(500), 2 * last, rtol=1e-5)


def test_step_schedule_multiplies_at_its_boundaries():
    schedule = warmup_then("step", 2.0, 1, 200, 0.0, (0.25, 0.5, 0.75), 0.1)
    rates = {0: 1, 1: 2, 49: 2, 50: 0.2, 99: 0.2, 100: 0.02, 150: 0.002, 199: 0.002}
    for step, rate in rates.items():
        np.testing.assert_allclose(schedule(step), rate, rtol=1e-5, err_msg=str(step))


def test_linear_decay_after_half_a_run_of_warmup_is_one_cycle():
    schedule = warmup_then("linear", 1.0, 4, 8)
    rates = [float(schedule(step)) for step in range(9)]
    np.testing.assert_allclose(
        rates, [0.2, 0.4, 0.6, 0.8, 1, 0.75, 0.5, 0.25, 0], atol=1e-6
    )
