"""Every published variant has exactly the published size, and the published cost."""

import jax
import jax.numpy as jnp
import pytest

from nfnet_jax import create_model, list_models
from nfnet_jax.models.registry import EXAMPLES
from nfnet_jax.models.statistics import multiply_adds
from nfnet_jax.ops.conv import native_operations
from nfnet_jax.optim.tree import count

PARAMETERS = {
    "nfnet_f0": 71_489_284,
    "nfnet_f1": 132_634_256,
    "nfnet_f2": 193_779_228,
    "nfnet_f3": 254_924_200,
    "nfnet_f4": 316_069_172,
    "nfnet_f5": 377_214_144,
    "nfnet_f6": 438_359_116,
    "nfnet_f7": 499_504_088,
    "nfnet_f0plus": 118_824_516,
    "nfnet_f1plus": 220_357_008,
    "nfnet_f2plus": 321_889_500,
    "nfnet_f3plus": 423_421_992,
    "nfnet_f4plus": 524_954_484,
    "nfnet_f5plus": 626_486_976,
    "nfnet_f6plus": 728_019_468,
    "nfnet_f7plus": 829_551_960,
    "nf_regnet_b0": 8_595_372,
    "nf_regnet_b1": 10_019_208,
    "nf_regnet_b2": 13_785_904,
    "nf_regnet_b3": 18_136_667,
    "nf_regnet_b4": 29_315_830,
    "nf_regnet_b5": 48_707_138,
    "nf_regnet_b6": 70_045_805,
    "nf_regnet_b7": 101_743_204,
    "nf_regnet_b8": 142_314_441,
    "nf_resnet50": 25_557_048,
    "nf_resnet101": 44_549_193,
    "nf_resnet152": 60_192_858,
    "nf_resnet200": 64_673_898,
    "nf_resnet288": 146_460_552,
    "nf_resnet600": 300_646_896,
    "skipinit_resnet50": 25_530_424,
    "fixup_resnet50": 25_504_026,
} | {
    # counted by timm 1.0.31
    "nfnet_l0": 35_074_488,
    "eca_nfnet_l0": 24_143_924,
    "eca_nfnet_l1": 41_407_728,
    "eca_nfnet_l2": 56_722_348,
    "timm_nf_regnet_b1": 10_223_984,
    "timm_nf_resnet50": 25_557_032,
    "timm_nf_seresnet50": 28_088_024,
    "timm_nf_ecaresnet50": 25_557_118,
}
PARAMETERS |= {f"dm_nfnet_f{n}": PARAMETERS[f"nfnet_f{n}"] for n in range(7)}

MULTIPLY_ADDS = {
    # at this size of image, in units of 1e9
    "nfnet_f0": (256, 12.38),
    "nfnet_f1": (320, 35.54),
    "nfnet_f2": (352, 62.59),
    "nfnet_f3": (416, 114.76),
    "nfnet_f6": (576, 377.28),
    "nf_resnet50": (224, 4.1),
    "nf_regnet_b0": (224, 0.44),
    "nf_regnet_b1": (256, 0.73),
    "nf_regnet_b2": (272, 1.10),
    "nf_regnet_b3": (320, 2.00),
    "nf_regnet_b4": (384, 4.47),
    "nf_regnet_b5": (456, 10.56),
}

BASELINES = {
    f"{kind}_resnet{layers}"
    for kind in ("bn", "skipinit", "fixup")
    for layers in (50, 101, 152, 200, 288, 600)
}


def shapes(model):
    images = jnp.zeros((1, 64, 64, 3))
    with native_operations():  # faster to trace
        return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name):
    assert count(shapes(create_model(name, 1000))) == PARAMETERS[name]


def test_squeeze_excite_adds_the_published_parameters():
    model = create_model("nf_resnet50", 1000, se_ratio=0.25)
    assert count(shapes(model)) == 35_635_704


def test_every_variant_is_listed_and_counted():
    assert set(list_models()) == PARAMETERS.keys() | BASELINES | set(EXAMPLES)


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds_are_the_published_ones(name):
    """The published count halves sizes without rounding: a + b · size².

    That is the true count where 32 divides the size. Elsewhere (B2, B5) the networks
    round up and compute 5 % more; a and b come from two sizes that 32 divides.
    """
    size, published = MULTIPLY_ADDS[name]
    model = create_model(name, 1000)

    def at(size):
        return multiply_adds(model, (size, size, 3))

    if size % 32:
        per_pixel = (at(128) - at(64)) / (128**2 - 64**2)
        counted = at(64) + per_pixel * (size**2 - 64**2)
        assert counted < at(size) < 1.06 * counted
    else:
        counted = at(size)
    assert counted == pytest.approx(published * 1e9, rel=0.01)


def test_overrides_change_the_widths_that_they_name():
    params = shapes(create_model("nf_regnet_b0", 10, width_multiplier=1.0))
    assert params["head"]["classifier"]["kernel"].shape == (1280, 10)
    params = shapes(create_model("nf_regnet_b0", 10, group_width=16, expansion=1.0))
    # The third stage's inputs have int(0.75 * 104) = 78 channels: 4 groups of 16.
    kernel = params["stages_2"]["transition"]["branch"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 16, 64)
    params = shapes(create_model("nfnet_f0", 10, width_multiplier=0.5, expansion=1.0))
    branch = params["stages_2"]["blocks_4"]["branch"]
    assert branch["conv1b"]["kernel"].shape == (3, 3, 128, 768)
    assert branch["squeeze_excite"]["squeeze"]["kernel"].shape == (768, 384)
    assert params["stem"]["stem_conv3"]["kernel"].shape == (3, 3, 64, 128)
    params = shapes(create_model("nfnet_f0", 10, se_ratio=0.0))
    assert "squeeze_excite" not in params["stages_0"]["transition"]["branch"]
    params = shapes(create_model("nf_resnet50", 10, width_multiplier=0.5))
    assert params["stem"]["conv"]["kernel"].shape == (7, 7, 3, 32)
    assert params["head"]["classifier"]["kernel"].shape == (1024, 10)
