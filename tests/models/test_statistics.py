"""Statistics of models: published tables, and training cost against sums by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from nfnet_jax.models import __main__ as table
from nfnet_jax.models.registry import create_model, find
from nfnet_jax.models.statistics import (
    model_info,
    multiply_adds,
    training_multiply_adds,
)
from nfnet_jax.optim.tree import matches
from nfnet_jax.utils.errors import UserError

SIZES = {
    "nfnet_f": [
        (192, 256),
        (224, 320),
        (256, 352),
        (320, 416),
        (384, 512),
        (416, 544),
        (448, 576),
        (480, 608),
    ],
    "nf_regnet_b": [
        (192, 224),
        (224, 256),
        (240, 272),
        (288, 320),
        (320, 384),
        (384, 456),
        (448, 528),
        (512, 600),
        (600, 672),
    ],
}
DROP_RATES = {
    "nfnet_f": [0.2, 0.3, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5],
    "nf_regnet_b": [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.5],
}
TOP1 = [83.6, 84.7, 85.1, 85.7, 85.9, 86.0, 86.5, None]


@pytest.mark.parametrize("family", SIZES)
def test_image_sizes_and_dropout_are_the_published_ones(family):
    for level, sizes in enumerate(SIZES[family]):
        variant = find(f"{family}{level}")
        assert (variant.train_size, variant.test_size) == sizes
        assert variant.settings["drop_rate"] == DROP_RATES[family][level]


def test_published_accuracies():
    assert [find(f"nfnet_f{n}").top1 for n in range(8)] == TOP1
    assert find("nfnet_f6").top5 == 97.9
    assert find("nfnet_f0plus").top1 is None


def test_facts_of_one_model():
    info = model_info("nfnet_f0")
    assert info.parameters == 71_489_284
    assert info.multiply_adds == pytest.approx(12.38e9, rel=1e-3)
    assert (info.train_size, info.test_size, info.top1, info.top5) == (
        192,
        256,
        83.6,
        96.8,
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.parameters = 0


def test_facts_of_a_model_with_free_sizes():
    info = model_info("bn_wrn_28_10")
    assert (info.num_classes, info.test_size) == (10, 32)
    assert info.parameters == 36_479_194


def test_the_table_prints_a_line_per_model(capsys):
    table.main(["models", "nfnet_f0*"])
    header, f0, f0plus = capsys.readouterr().out.splitlines()
    assert "multiply-adds" in header
    assert f0.split()[:4] == ["nfnet_f0", "71,489,284", "12.38", "G"]
    assert f0plus.split()[:2] == ["nfnet_f0plus", "118,824,516"]


def test_a_pattern_without_matches_is_refused():
    with pytest.raises(UserError, match=r"'resnext\*' matches none of"):
        table.main(["models", "resnext*"])


SHAPE = (12, 12, 3)


def cost(*patterns):
    model = create_model("nf_air_4", 10)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    frozen = matches(params["params"], patterns, "optim.freeze")
    return training_multiply_adds(model, SHAPE, frozen)


FORWARD = multiply_adds(create_model("nf_air_4", 10), SHAPE)
STEM = 11**2 * 12 * 24
FIRST_TWO = 5**2 * 9 * 24 * 4 + 5**2 * 9 * 4 * 4
LAST = 16 * 10


def test_options_may_be_lists():
    widths, depths = (16, 32), (1, 2)
    tuples = create_model("nf_resnet50", 10, widths=widths, depths=depths)
    lists = create_model("nf_resnet50", 10, widths=[*widths], depths=[*depths])
    assert multiply_adds(lists, SHAPE) == multiply_adds(tuples, SHAPE) > 0


def test_backward_costs_twice_forward():
    assert cost() == 3 * FORWARD


def test_a_frozen_stem_is_computed_forward_only():
    assert cost("stem") == 3 * FORWARD - 2 * STEM


def test_what_only_a_frozen_body_precedes_needs_no_gradients():
    body = FORWARD - LAST
    assert cost("stem", "stages", "moments") == body + 3 * LAST


def test_frozen_kernels_above_trained_layers_pass_gradients_on():
    assert cost("stages_0/.*kernel", "stem") == 3 * FORWARD - 2 * STEM - (
        FIRST_TWO + 5**2 * 9 * 24 * 4
    )
