"""NF-ResNets: sizes by formula, names, independence of examples, depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturbed import perturbed

from nfnet_jax import create_model
from nfnet_jax.models.statistics import multiply_adds
from nfnet_jax.optim.tree import count


def shapes(model, size=32):
    images = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


@pytest.mark.parametrize("depth, width", [(10, 1), (16, 4), (28, 10)])
def test_wide_resnet_parameters_by_formula(depth, width):
    n = (depth - 4) // 6
    widths = [16 * width, 32 * width, 64 * width]

    def conv(size, c_in, c_out):  # kernel, gain, bias
        return size * size * c_in * c_out + 2 * c_out

    expected, c_in = conv(3, 3, 16), 16
    for w in widths:
        expected += conv(3, c_in, w) + conv(3, w, w) + conv(1, c_in, w) + 1
        expected += (n - 1) * (2 * conv(3, w, w) + 1)
        c_in = w
    expected += c_in * 10 + 10
    assert count(shapes(create_model(f"nf_wrn_{depth}_{width}", 10))) == expected


def test_original_network_has_its_recorded_size():
    """737,242 parameters with kernels and biases; the gains come on top."""
    model = create_model("nf_bottleneck_5_16", 10)
    params = shapes(model)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    gains = sum(leaf.size for path, leaf in leaves if "gain" in path[-1].key)
    assert count(params) - gains == pytest.approx(737_242, rel=0.01)
    # The original strides the first 1x1 of a transition, not the first 3x3.
    later_stride = 3 / 4 * (32 * 32 * 64 * 32 + 16 * 16 * 128 * 64)
    macs = multiply_adds(model, (32, 32, 3)) - later_stride
    assert macs == pytest.approx(106e6, rel=2e-3)


def test_multiply_adds_of_a_small_network_by_hand():
    pixels, macs = 8 * 8, 0
    macs += pixels * 9 * 1 * 16  # stem
    c_in = 16
    for width, size in ((16, 8), (32, 4), (64, 2)):
        macs += size * size * (9 * c_in * width + 9 * width * width + c_in * width)
        c_in = width
    macs += 64 * 10
    assert multiply_adds(create_model("nf_wrn_10_1", 10), (8, 8, 1)) == macs


@pytest.mark.parametrize("name", ["nf_wrn_16_1", "nf_bottleneck_2_4"])
def test_logits_of_an_image_do_not_depend_on_its_batch(name):
    model = create_model(name, 10)
    images = jax.random.normal(jax.random.key(1), (6, 16, 16, 3))
    params = perturbed(model, (16, 16, 3))
    apply = jax.jit(lambda x: model.apply({"params": params}, x, train=False))
    together = apply(images)
    alone = jnp.concatenate([apply(images[i : i + 1]) for i in range(6)])
    among_noise = apply(images.at[1:].set(1e3 * images[1:]))
    scale = np.abs(together).max()
    np.testing.assert_allclose(alone, together, atol=2e-6 * scale)
    np.testing.assert_allclose(among_noise[0], together[0], atol=2e-6 * scale)


def test_blocks_are_the_identity_at_first():
    """With closed skip gains a stage is its transition's projection."""
    model = create_model("nf_wrn_16_1", 10)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    params = model.init(jax.random.key(0), images)["params"]
    logits = model.apply({"params": params}, images)
    for stage in ("stages_0", "stages_1", "stages_2"):
        branch = jax.tree.map(lambda p: p * 7, params[stage]["blocks_0"]["branch"])
        params[stage]["blocks_0"]["branch"] = branch
    np.testing.assert_array_equal(model.apply({"params": params}, images), logits)


def test_a_raw_shortcut_projects_what_was_not_activated():
    """With a closed skip gain the transition is a 1x1 convolution of its input."""
    transition = create_model("nf_wrn_10_1", 10, raw_shortcut=True).stages[0].transition
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 16))
    variables = transition.init(jax.random.key(0), x, 1.3, 0.0, train=False)
    found = transition.apply(variables, x, 1.3, 0.0, train=False)
    kernel = np.asarray(variables["params"]["shortcut"]["kernel"][0, 0], float)
    kernel = (kernel - kernel.mean(0)) / np.sqrt(16 * kernel.var(0))
    np.testing.assert_allclose(found, np.asarray(x, float) @ kernel, atol=1e-5)


def test_compiled_program_does_not_grow_with_depth():
    def operations(name):
        model = create_model(name, 10)
        images = jnp.zeros((1, 8, 8, 3))
        params = shapes(model, 8)
        text = jax.jit(model.apply).lower({"params": params}, images).as_text()
        return text.count("\n")

    assert operations("nf_wrn_1000_1") == operations("nf_wrn_46_1")


@pytest.mark.parametrize(
    "name, overrides, words",
    [
        ("nf_resnet51", {}, "nf_resnet50"),
        ("nf_wrn_17_4", {}, "nearest is 16"),
        ("nf_wrn_4_2", {}, "nearest is 10"),
        ("nf_wrn_16_0", {}, "at least one"),
        ("nf_bottleneck_0_16", {}, "at least one"),
        ("nf_wrn_16_2", {"alhpa": 0.1}, "alpha"),
        ("nf_wrn_16_2", {"se_ratio": 0.5}, "no option 'se_ratio'"),
        ("nf_wrn_16_2", {"alpha": 0.0}, "positive"),
        ("nf_wrn_16_2", {"drop_rate": 1.0}, r"\[0, 1\)"),
        ("nf_wrn_16_2", {"beta": "sd"}, "std"),
        ("nfnet_f8", {}, "nfnet_f"),
        ("nfnet_f0", {"group_width": 256}, "at most the 128 channels"),
        ("nf_regnet_b0", {"widths": (8, 16, 32)}, "equally many"),
        ("fixup_resnet50", {"alpha": 0.2}, "alpha: Fixup networks have only"),
        ("bn_wrn_17_4", {}, "nearest is 16"),
    ],
)
def test_bad_names_and_options_are_refused(name, overrides, words):
    with pytest.raises(ValueError, match=words):
        create_model(name, 10, **overrides)
