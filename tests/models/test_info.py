"""Facts about models, against the published tables."""

import dataclasses

import pytest

from nfnet_jax.models import __main__ as table
from nfnet_jax.models.info import model_info
from nfnet_jax.models.registry import find
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
