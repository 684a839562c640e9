"""Sums over pixels in bfloat16, whole numbers, and the dtypes of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from nfnet_jax.layers.correlated_conv import CorrelatedConv
from nfnet_jax.layers.dropout import StochasticDepth
from nfnet_jax.layers.residual import SkipGain
from nfnet_jax.layers.squeeze_excite import EfficientChannelAttention, SqueezeExcite
from nfnet_jax.layers.ws_conv import AveragePool, WSConv, standardize
from nfnet_jax.models.nf_air import UnitMoments
from nfnet_jax.ops.conv import conv2d
from nfnet_jax.ops.pooling import max_pool
from nfnet_jax.ops.precision import add_bias, in_float32
from nfnet_jax.utils.jax_versions import enable_x64

LAYERS = {
    "WSConv": WSConv(8, (1, 1)),
    "plain": WSConv(8, (1, 1), standardized=False),
    "pooled": WSConv(8, (1, 1), pool=True),
    "grouped": WSConv(8, groups=2),
    "CorrelatedConv": CorrelatedConv(8),
    "SkipGain": SkipGain(),
    "UnitMoments": UnitMoments(),
    "SqueezeExcite": SqueezeExcite(4),
    "ECA": EfficientChannelAttention(),
}

KEY, DROP = jax.random.key(0), StochasticDepth()


def positive(shape, dtype=jnp.bfloat16):
    """Numbers in [0, 1) that bfloat16 holds; sums of them and of products only grow."""
    return jnp.asarray(np.random.default_rng(0).random(shape), jnp.bfloat16).astype(
        dtype
    )


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_what_is_broadcast_over_pixels_are_whole_sums(name):
    layer, shape = LAYERS[name], (64, 24, 24, 8)
    params = layer.init(KEY, positive((1, *shape[1:]), jnp.float32))
    # A skip gain or a bias of 0 would close what lies behind it.
    params = jax.tree.map(lambda p: p if p.any() else p + 0.5, params)

    @jax.jit
    def gradients(x, cotangent):
        y, back = jax.vjp(lambda p: layer.apply(p, x), params)
        assert y.dtype == x.dtype
        flat = traverse_util.flatten_dict(back(cotangent.astype(x.dtype))[0])
        assert {leaf.dtype for leaf in flat.values()} == {jnp.dtype(jnp.float32)}
        return flat

    # Sums that do not cancel: of positive numbers, and of numbers times themselves
    # (which say nothing of standardized kernels, whose length has no gradient).
    linear = () if hasattr(layer, "standardized") else ("kernel",)
    normal = np.random.default_rng(1).standard_normal(shape)
    for images, kinds in (
        (positive(shape), ("bias", "skip_gain", *linear)),
        (jnp.asarray(normal, jnp.bfloat16), ("gain", "skip_gain")),
    ):
        exact_images = images.astype(jnp.float32)
        y = layer.apply(params, exact_images).astype(jnp.bfloat16)
        cotangent = abs(y) if "bias" in kinds else y
        found, exact = (gradients(x, cotangent) for x in (images, exact_images))
        for path in found:
            if path[-1] in kinds:
                error = np.linalg.norm(found[path] - exact[path])
                assert error <= 0.02 * np.linalg.norm(exact[path]), path


def test_a_bias_counts_as_many_pixels_as_there_are():
    x = positive((64, 48, 48, 8))
    weights = positive(x.shape)

    def total(bias):
        y = add_bias(x, bias).astype(jnp.float32)
        return (y * weights.astype(jnp.float32)).sum()

    exact = np.asarray(weights, np.float64).sum((0, 1, 2))
    assert exact.min() > 70_000
    np.testing.assert_allclose(jax.grad(total)(jnp.zeros(8)), exact, rtol=1e-3)


def test_what_is_kept_for_the_gradient_stays_narrow():
    multiply = in_float32(lambda x, scale: x * scale)
    x, scale = positive((2, 4, 4, 3)), jnp.ones((1, 1, 1, 3))
    _, saved = jax.vjp(multiply, x, scale)
    kept = {str(leaf.dtype) for leaf in jax.tree.leaves(saved) if leaf.size == x.size}
    assert kept == {"bfloat16"}


def test_rates_and_drops_keep_the_dtype():
    x = positive((32, 3))
    y = DROP.apply({}, x, 0.5, train=True, rngs={"dropout": KEY})
    assert y.dtype == x.dtype
    assert set(np.unique(np.asarray(y == x).all(1))) == {False, True}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_averages_of_pixels_are_rounded_once(dtype):
    x = positive((2, 5, 6, 3), dtype)
    windows = np.pad(np.asarray(x, float), ((0, 0), (0, 1), (0, 0), (0, 0)))
    windows = windows.reshape(2, 3, 2, 3, 2, 3)
    counts = np.array([4.0, 4.0, 2.0])[:, None, None]
    exact = (windows.sum((2, 4)) / counts).astype(dtype)
    y = AveragePool()(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(np.asarray(y, float), np.asarray(exact, float))


WHOLE = [jnp.uint8, jnp.int32, jnp.bool_]


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize("name", LAYERS)
def test_no_layer_cuts_itself_down_to_whole_numbers(name, dtype):
    layer, x = LAYERS[name], jnp.ones((2, 8, 8, 8))
    params = layer.init(jax.random.key(0), x)
    with pytest.raises(TypeError, match=f"{jnp.dtype(dtype).name}.*floating point"):
        layer.apply(params, x.astype(dtype))


@pytest.mark.parametrize("dtype", WHOLE)
def test_no_function_does_so_either(dtype):
    x = jnp.ones((2, 8, 8, 8), dtype)
    for function in (
        AveragePool(),
        max_pool,
        lambda x: conv2d(x, jnp.ones((1, 1, 8, 4), dtype)),
        lambda x: conv2d(x.astype(float), jnp.ones((1, 1, 8, 4), dtype)),
        lambda x: standardize(x[0], jnp.ones(8)),
        lambda x: DROP.apply({}, x, 0.5, train=True, rngs={"dropout": KEY}),
    ):
        with pytest.raises(TypeError, match="floating point|expected one"):
            function(x)


@pytest.mark.parametrize("param_dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("image_dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_have_the_dtype_of_what_they_are_of(name, image_dtype, param_dtype):
    layer = LAYERS[name]
    with enable_x64(True):
        x = jnp.ones((1, 4, 4, 8), image_dtype)
        params = layer.init(KEY, x.astype(jnp.float32))
        params = jax.tree.map(lambda p: p.astype(param_dtype), params)
        # Flax's own layers promote.
        with jax.numpy_dtype_promotion("standard"):
            y, back = jax.vjp(layer.apply, params, x)
            gradients, x_gradient = back(jnp.ones_like(y))
    assert y.dtype == x_gradient.dtype == image_dtype
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(gradients)}
    assert dtypes == {jnp.dtype(param_dtype)}


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_are_float32_whatever_the_default(name):
    with enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params = LAYERS[name].init(KEY, jnp.ones((1, 4, 4, 8), jnp.float64))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_gradients_of_single_examples_in_bfloat16():
    """Every lowering, under `vmap` over parameters and images."""
    x = positive((3, 2, 8, 8, 8))
    for layer in (*LAYERS.values(), WSConv(8, strides=2), WSConv(4, 9), WSConv(8)):
        params = layer.init(KEY, x[0].astype(jnp.float32))

        def loss(params, x, layer=layer):
            return jnp.square(layer.apply(params, x).astype(jnp.float32)).sum()

        def product(params, x, loss=loss):
            return jax.jvp(jax.grad(loss), (params, x), (params, x))[1]

        both = jax.tree.map(lambda p: jnp.stack([p, p, p]), params)
        for gradient in (jax.grad(loss), product):
            mapped = jax.jit(jax.vmap(gradient))(both, x)
            alone = jax.jit(gradient)(params, x[1])
            pairs = zip(*map(jax.tree.leaves, (mapped, alone)), strict=True)
            for one, other in pairs:
                largest = np.abs(other).max()
                np.testing.assert_allclose(one[1], other, atol=0.03 * largest)
