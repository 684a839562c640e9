"""Shared pieces: shapes, and the names of their parameters."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from nfnet_jax.layers.affine import as_images
from nfnet_jax.layers.ws_conv import AveragePool, WSConv
from nfnet_jax.models.blocks import (
    Branch,
    basic,
    bottleneck,
    channel_attention,
    pooled_projection,
)


def relu(x, *, train):
    return jax.nn.relu(x)


@pytest.mark.parametrize("stride, size", [(1, 5), (2, 3)])
def test_pooled_projection_keeps_the_names_of_a_plain_one(stride, size):
    projection = pooled_projection(WSConv, 8, stride)
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 4))
    params = projection.init(jax.random.key(1), x)["params"]
    assert params.keys() == {"kernel", "gain", "bias"}
    y = as_images(projection.apply({"params": params}, x))
    assert y.shape == (2, size, size, 8)
    pooled = AveragePool()(x) if stride == 2 else x
    expected = WSConv(8, (1, 1)).apply({"params": params}, pooled)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "convs, names",
    [
        (basic(8, 2), {"conv0", "conv1"}),
        (bottleneck(8, 16, 2), {"conv0", "conv1", "conv2"}),
        (bottleneck(8, 16, 2, 2, 4), {"conv0", "conv1", "conv1b", "conv2"}),
        (bottleneck(8, 16, 2, 3), {"conv0", "conv1", "conv1b", "conv1c", "conv2"}),
    ],
)
def test_branches_stride_once_and_name_their_convolutions(convs, names):
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
    branch = Branch(convs, WSConv, relu)
    y, variables = branch.init_with_output(jax.random.key(1), x, train=False)
    assert as_images(y).shape == (2, 3, 3, convs[-1].features)
    assert variables["params"].keys() == names


@pytest.mark.parametrize("inside, width", [(False, 16), (True, 8)])
def test_squeeze_excite_scales_output_or_inner_channels(inside, width):
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
    branch = functools.partial(Branch, bottleneck(8, 16, 1), WSConv, relu)
    excited = branch(attention=channel_attention("se", 0.5), attention_inside=inside)
    params = excited.init(jax.random.key(1), x, train=False)["params"]
    squeeze = params["squeeze_excite"]["squeeze"]["kernel"]
    assert squeeze.shape == (width, width // 2)
    # A gate held at 2 · sigmoid(0) = 1 changes nothing; at 2 · sigmoid(-50), all.
    closed = {
        path: leaf * 0 if "squeeze_excite" in path else leaf
        for path, leaf in traverse_util.flatten_dict(params).items()
    }
    params = traverse_util.unflatten_dict(closed)
    plain = branch().apply({"params": params}, x, train=False)
    y = excited.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(as_images(y), as_images(plain), rtol=1e-5, atol=1e-5)
    params["squeeze_excite"]["excite"]["bias"] -= 50
    y = excited.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(as_images(y), 0, atol=1e-6)
