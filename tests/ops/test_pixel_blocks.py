"""Convolutions over blocks of pixels against the convolutions of pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nfnet_jax.models.network import for_platform
from nfnet_jax.models.registry import create_model
from nfnet_jax.ops.pixel_blocks import PAIR, PIXEL, SQUARE, STEM, BlockConv
from nfnet_jax.utils.jax_versions import enable_x64


def conv(x, kernel, stride):
    dimensions = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=dimensions, precision="highest"
    )


def pixels(blocks, size):
    """Blocks [N, H, W, size² C] taken apart to [N, H · size, W · size, C]."""
    n, height, width, _ = blocks.shape
    parts = blocks.reshape(n, height, width, size, size, -1).swapaxes(2, 3)
    return parts.reshape(n, height * size, width * size, -1)


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
    blocks = np.asarray(BlockConv(1, 2, 2).kernel(kernel))
    assert blocks.shape == (2, 2, 4, 4)
    for output in range(4):
        weights = blocks[..., output]
        assert sorted(weights[weights != 0]) == list(range(1, 10))


@pytest.mark.parametrize("size", [(16, 24), (18, 16)])
def test_nfnets_for_tpus_are_the_same_function(size):
    """Sides that 4 does not divide fall back to pixels."""
    plain = create_model("nfnet_f0", 4, depths=(1, 1, 1, 1), width_multiplier=0.5)
    stem, blocked = (
        model.stem.clone(parent=None) for model in (plain, for_platform(plain, "tpu"))
    )
    assert blocked.pixel_blocks and not for_platform(plain, "gpu").stem.pixel_blocks
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    variables = stem.init(jax.random.key(1), x)

    def loss(stem, variables, x):
        return jnp.square(stem.apply(variables, x)).mean()

    expected, found = (
        jax.value_and_grad(loss, argnums=(1, 2))(each, variables, x)
        for each in (stem, blocked)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        expected,
        found,
    )


def test_symmetric_padding_keeps_the_stem_of_pixels():
    model = for_platform(create_model("dm_nfnet_f0", 4, padding="symmetric"), "tpu")
    x = jnp.ones((1, 16, 16, 3))
    stem = model.stem.clone(parent=None)
    variables = jax.eval_shape(stem.init, jax.random.key(0), x)
    y = jax.eval_shape(stem.apply, variables, x)
    assert y.shape == (1, 4, 4, 128)
