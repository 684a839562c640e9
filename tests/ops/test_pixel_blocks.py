"""Convolutions over blocks of pixels against the convolutions of pixels."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nfnet_jax.models.network import for_platform
from nfnet_jax.models.registry import create_model
from nfnet_jax.ops.conv import native_operations
from nfnet_jax.ops.pixel_blocks import (
    ENTER_PAIRS,
    PAIR,
    PAIRS_3X3,
    SQUARE,
    STEM,
    BlockConv,
    LeavePairs,
)
from nfnet_jax.utils.jax_versions import enable_x64


def conv(x, kernel, stride):
    dimensions = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=dimensions, precision="highest"
    )


def pixels(blocks, size):
    """Blocks [N, H, W, h w C] of h x w pixels taken apart to [N, h H, w W, C]."""
    n, height, width, _ = blocks.shape
    h, w = size
    parts = blocks.reshape(n, height, width, h, w, -1).swapaxes(2, 3)
    return parts.reshape(n, height * h, width * w, -1)


def test_every_step_of_the_stem_is_the_convolution_of_the_pixels():
    """Blocks reach two, one and no pixels beyond the image."""
    rng = np.random.default_rng(0)
    with enable_x64(True):
        expected = blocks = jnp.asarray(rng.normal(size=(2, 16, 24, 3)))
        edges, channels = (2, 1, 0, 0), (3, 2, 3, 4, 5)
        for i, step in enumerate(STEM):
            kernel = jnp.asarray(rng.normal(size=(3, 3, *channels[i : i + 2])))
            expected = conv(expected, kernel, step.stride)
            blocks = step(blocks, kernel)
            found = pixels(blocks, step.outputs)
            height, width = found.shape[1:3]
            edge = edges[i]
            found = found[:, edge : height - edge, edge : width - edge]
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_kernel_of_blocks_has_every_weight_once_for_each_output():
    kernel = jnp.arange(1.0, 10).reshape(3, 3, 1, 1)
    blocks = np.asarray(BlockConv(1, SQUARE, SQUARE).kernel(kernel))
    assert blocks.shape == (2, 2, 4, 4)
    for output in range(4):
        weights = blocks[..., output]
        assert sorted(weights[weights != 0]) == list(range(1, 10))


def test_branches_of_pairs_are_the_convolutions_of_the_pixels():
    """1x1 into pairs, 3x3 among them, 1x1 out of them; with all gradients."""
    rng = np.random.default_rng(0)
    with enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, 6, 8, 5)))
        shapes = (1, 1, 5, 3), (3, 3, 3, 4), (1, 1, 4, 6)
        kernels = tuple(jnp.asarray(rng.normal(size=shape)) for shape in shapes)
        weights = jnp.asarray(rng.normal(size=(2, 6, 8, 6)))

        def in_pixels(x, kernels):
            for kernel in kernels:
                x = conv(x, kernel, 1)
            return (x * weights).sum()

        def in_pairs(x, kernels):
            steps = ENTER_PAIRS, PAIRS_3X3, LeavePairs()
            for step, kernel in zip(steps, kernels, strict=True):
                x = step(x, kernel)
            return (x * weights).sum()

        first = pixels(ENTER_PAIRS(x, kernels[0]), PAIR)
        np.testing.assert_allclose(first, conv(x, kernels[0], 1), atol=1e-12)
        expected, found = (
            jax.value_and_grad(function, (0, 1))(x, kernels)
            for function in (in_pixels, in_pairs)
        )
        chex.assert_trees_all_close(found, expected, rtol=1e-10, atol=1e-10)


def test_leaving_pairs_reverses_kernels_only():
    """Derived by JAX, its kernel gradient would reverse the gradient of its output."""
    x, kernel = jnp.ones((2, 6, 4, 8)), jnp.ones((1, 1, 4, 6))
    gradient = jax.make_jaxpr(jax.grad(lambda k: LeavePairs()(x, k).sum()))(kernel)
    reversed_shapes = re.findall(r":f32\[([\d,]+)\] = rev", str(gradient))
    assert set(reversed_shapes) == {"1,2,6,8"}


@pytest.mark.parametrize(
    "name, options, size",
    [
        ("nfnet_f0", {}, (32, 32)),
        ("nf_resnet50", {"depths": (2, 1, 1, 1)}, (32, 32)),
        ("nf_resnet50", {"depths": (7, 1, 1, 1), "se_ratio": 0.5}, (16, 16)),
        ("nf_regnet_b0", {"widths": (16, 16, 16, 16)}, (32, 32)),
    ],
)
def test_networks_for_tpus_are_the_same_functions(name, options, size):
    """Logits and gradients of all parameters in float64, blocks scanned or not."""
    settings = {"depths": (1, 2, 1, 1), "stochastic_depth": 0.0, "drop_rate": 0.0}
    model = create_model(name, 4, **settings | options)
    with enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, *size, 3), jnp.float64)
        with native_operations():
            shapes = jax.eval_shape(model.init, jax.random.key(1), x)
        rng = np.random.default_rng(0)
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float64), shapes
        )

        def loss(model, variables):
            logits = model.apply(variables, x, train=True)
            return (logits * jnp.arange(4.0)[None]).mean()

        expected, found = (
            jax.jit(jax.value_and_grad(functools.partial(loss, each)))(variables)
            for each in (model, for_platform(model, "tpu"))
        )
        scale = jax.tree.map(lambda leaf: jnp.abs(leaf).max() + 1e-30, expected)
        relative = jax.tree.map(
            lambda a, b, s: jnp.abs(a - b).max() / s, expected, found, scale
        )
        assert max(jax.tree.leaves(relative)) < 1e-9
    assert for_platform(model, "gpu") is model


@pytest.mark.parametrize(
    "name",
    [
        *("bn_resnet50", "skipinit_resnet50", "fixup_resnet50", "bn_wrn_16_4"),
        *("nf_air_32", "nf_bottleneck_2_16", "nfnet_l0", "eca_nfnet_l0"),
        *("timm_nf_resnet50", "timm_nf_seresnet50", "timm_nf_regnet_b1"),
    ],
)
def test_networks_of_every_kind_have_the_same_parameters_on_a_tpu(name):
    x = jnp.ones((2, 64, 64, 3), jnp.bfloat16)

    def shapes(model):
        with native_operations():
            variables = jax.eval_shape(model.init, jax.random.key(0), x)
            train = functools.partial(model.apply, train=True, mutable=["batch_stats"])
            rngs = {"dropout": jax.random.key(1)}
            return variables, jax.eval_shape(train, variables, x, rngs=rngs)

    model = create_model(name, 10)
    assert shapes(for_platform(model, "tpu")) == shapes(model)


@pytest.mark.parametrize("size", [(16, 24), (18, 16)])
def test_stems_fall_back_to_pixels_where_blocks_do_not_fit(size):
    """4 must divide both sides, and the padding be "SAME"."""
    for name, expected in (("nfnet_f0", size == (16, 24)), ("dm_nfnet_f0", False)):
        padding = {"padding": "symmetric"} if name == "dm_nfnet_f0" else {}
        model = for_platform(create_model(name, 4, **padding), "tpu")
        stem, x = model.stem.clone(parent=None), jnp.ones((1, *size, 3))
        variables = jax.eval_shape(stem.init, jax.random.key(0), x)
        program = jax.make_jaxpr(stem.apply)(jax.tree.map(jnp.zeros_like, variables), x)
        assert ("1,6,8,64" in str(program).replace(" ", "")) == expected
        assert program.out_avals[0].shape == (
            1,
            -(-size[0] // 4),
            -(-size[1] // 4),
            128,
        )
