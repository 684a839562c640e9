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

PUBLISHED = {
    # train sizes, test sizes, dropout
    "nfnet_f": (
        (192, 224, 256, 320, 384, 416, 448, 480),
        (256, 320, 352, 416, 512, 544, 576, 608),
        (0.2, 0.3, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5),
    ),
    "nf_regnet_b": (
        (192, 224, 240, 288, 320, 384, 448, 512, 600),
        (224, 256, 272, 320, 384, 456, 528, 600, 672),
        (0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.5),
    ),
}
TOP1 = [83.6, 84.7, 85.1, 85.7, 85.9, 86.0, 86.5, None]


@pytest.mark.parametrize("family", PUBLISHED)
def test_image_sizes_and_dropout_are_the_published_ones(family):
    for level, row in enumerate(zip(*PUBLISHED[family], strict=True)):
        own = find(f"{family}{level}")
        assert (own.train_size, own.test_size, own.settings["drop_rate"]) == row


def test_published_accuracies():
    assert [find(f"nfnet_f{n}").top1 for n in range(8)] == TOP1
    assert find("nfnet_f6").top5 == 97.9
    assert find("nfnet_f0plus").top1 is None


def test_facts_of_one_model():
    info = model_info("nfnet_f0")
    assert info.parameters == 71_489_284
    assert info.multiply_adds == pytest.approx(12.38e9, rel=1e-3)
    assert (info.train_size, info.test_size) == (192, 256)
    assert (info.top1, info.top5) == (83.6, 96.8)
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


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [
        ((), 3 * FORWARD),
        # A stem is computed forward only.
        (("stem",), 3 * FORWARD - 2 * STEM),
        # Behind a frozen body, no gradients of inputs are needed.
        (("stem", "stages", "moments"), FORWARD + 2 * LAST),
        # Frozen kernels above trained layers pass gradients on.
        (
            ("stages_0/.*kernel", "stem"),
            3 * FORWARD - 2 * STEM - (FIRST_TWO + 5**2 * 9 * 24 * 4),
        ),
    ],
)
def test_training_costs_what_is_not_frozen(frozen, expected):
    assert cost(*frozen) == expected
