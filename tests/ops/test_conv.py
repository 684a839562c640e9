"""Every lowering against `lax.conv_general_dilated`, values and gradients."""

import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nfnet_jax.ops.conv import conv2d, native_gradients
from nfnet_jax.ops.cpu_conv import native_conv


def reference(x, kernel, strides, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision="highest",
    )


CASES = [
    dict(size=size, window=window, strides=(stride, stride), padding=pad, groups=groups)
    for size, window, stride, pad, groups in itertools.product(
        [(8, 7)],
        [(1, 1), (3, 3), (5, 2), (7, 7)],
        [1, 2],
        ["SAME", "VALID", ((1, 2), (0, 1))],
        [1, 2],
    )
]
CASES += [
    dict(size=size, window=(3, 3), strides=(1, 1), padding="SAME", groups=groups)
    for size, groups in itertools.product([(2, 2), (5, 1)], [1, 2])
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_values_and_gradients_match_lax(case):
    groups, strides, padding = case["groups"], case["strides"], case["padding"]
    rng = np.random.RandomState(0)
    x = jnp.asarray(rng.standard_normal((3, *case["size"], 4)), jnp.float32)
    kernel_shape = (*case["window"], 4 // groups, 6)
    kernel = jnp.asarray(rng.standard_normal(kernel_shape), jnp.float32)

    ours = jax.jit(
        lambda x, k: conv2d(x, k, strides=strides, padding=padding, groups=groups)
    )
    stock = jax.jit(lambda x, k: reference(x, k, strides, padding, groups))
    y, y_vjp = jax.vjp(ours, x, kernel)
    expected, expected_vjp = jax.vjp(stock, x, kernel)
    cotangent = jnp.asarray(rng.standard_normal(expected.shape), jnp.float32)
    chex.assert_trees_all_close(y, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(
        y_vjp(cotangent), expected_vjp(cotangent), rtol=1e-5, atol=2e-5
    )


@pytest.mark.parametrize("groups, width", [(5, 8), (11, 16), (3, 40), (2, 128)])
def test_groups_of_every_width_match_lax(groups, width):
    """Merged evenly, with a rest, by pairs, and not at all."""
    rng = np.random.RandomState(0)
    x = jnp.asarray(rng.standard_normal((2, 5, 6, groups * width)), jnp.float32)
    shape = (3, 3, width, 2 * groups * width)
    kernel = jnp.asarray(rng.standard_normal(shape), jnp.float32) / width
    y, vjp = jax.vjp(lambda x, k: conv2d(x, k, groups=groups), x, kernel)
    static = ((1, 1), "SAME", groups)
    expected, expected_vjp = jax.vjp(lambda x, k: reference(x, k, *static), x, kernel)
    chex.assert_trees_all_close(y, expected, rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(
        vjp(expected), expected_vjp(expected), rtol=1e-4, atol=2e-3
    )


@pytest.mark.parametrize(
    "size, channels, stride",
    [((4, 3), (512, 256), 1), ((8, 8), (128, 144), 1), ((7, 10), (40, 24), 2)],
)
def test_many_channels_match_lax(size, channels, stride):
    """Products for few pixels, minimal filtering, and products over skipped pixels."""
    rng = np.random.RandomState(0)
    inputs, features = channels
    x = jnp.asarray(rng.standard_normal((16, *size, inputs)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, *channels)), jnp.float32) / inputs
    static = ((stride, stride), "SAME", 1)
    y, vjp = jax.vjp(lambda x, k: conv2d(x, k, strides=static[0]), x, kernel)
    expected, expected_vjp = jax.vjp(lambda x, k: reference(x, k, *static), x, kernel)
    grad = jnp.asarray(rng.standard_normal(expected.shape), jnp.float32)
    found, wanted = (y, *vjp(grad)), (expected, *expected_vjp(grad))
    for own, stock in zip(found, wanted, strict=True):
        error = jnp.abs(own - stock).max() / jnp.abs(stock).max()
        assert error < 1e-5


@pytest.mark.parametrize("window, strides", [((1, 1), (2, 3)), ((2, 3), (3, 2))])
def test_strides_wider_than_the_kernel_match_lax(window, strides):
    rng = np.random.RandomState(0)
    x = jnp.asarray(rng.standard_normal((2, 9, 8, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((*window, 4, 6)), jnp.float32)
    static = (strides, ((1, 1), (2, 0)), 1)
    y, vjp = jax.vjp(
        lambda x, k: conv2d(x, k, strides=strides, padding=static[1]), x, kernel
    )
    expected, expected_vjp = jax.vjp(lambda x, k: reference(x, k, *static), x, kernel)
    chex.assert_trees_all_close(y, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(
        vjp(expected), expected_vjp(expected), rtol=1e-5, atol=1e-4
    )


def test_native_lowering_of_accelerators_matches_lax():
    rng = np.random.RandomState(1)
    x = jnp.asarray(rng.standard_normal((2, 7, 8, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 2, 6)), jnp.float32)
    static = ((2, 1), ((1, 1), (0, 1)), 2)
    expected, vjp = jax.vjp(lambda x, k: reference(x, k, *static), x, kernel)
    np.testing.assert_allclose(
        native_conv(*static, x, kernel), expected, rtol=1e-5, atol=1e-5
    )
    grads = native_gradients(*static, x, kernel, expected)
    chex.assert_trees_all_close(grads, vjp(expected), rtol=1e-5, atol=1e-4)


def test_bfloat16_stays_bfloat16():
    x, kernel = jnp.ones((2, 4, 4, 3), jnp.bfloat16), jnp.ones((3, 3, 3, 2))
    grads = jax.grad(lambda x, k: conv2d(x, k).sum().astype(jnp.float32), (0, 1))
    x_grad, kernel_grad = grads(x, kernel.astype(jnp.bfloat16))
    assert conv2d(x, kernel.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert x_grad.dtype == kernel_grad.dtype == jnp.bfloat16


def test_strided_gradients_of_bfloat16_are_rounded_once():
    rng = np.random.RandomState(0)
    x = jnp.asarray(rng.standard_normal((2, 8, 8, 32)), jnp.bfloat16)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 32, 48)), jnp.bfloat16)
    y, vjp = jax.vjp(lambda x, k: conv2d(x, k, strides=(2, 2)), x, kernel)
    exact = (array.astype(jnp.float32) for array in (x, kernel))
    _, exact_vjp = jax.vjp(lambda x, k: reference(x, k, (2, 2), "SAME", 1), *exact)
    for found, wanted in zip(vjp(y), exact_vjp(y.astype(jnp.float32)), strict=True):
        error = jnp.abs(found.astype(jnp.float32) - wanted)
        assert (error <= 2.0**-8 * jnp.abs(wanted) + 1e-3).all()


def test_misfit_channels_are_named():
    with pytest.raises(ValueError, match=r"5 input channels.*groups=2"):
        conv2d(jnp.ones((1, 4, 4, 5)), jnp.ones((3, 3, 2, 4)), groups=2)


def test_convolutions_alike_are_one_function_of_the_program():
    """Tracing, lowering and loading then take no longer for more of them."""

    def products(layers):
        def loss(kernels):
            x = jnp.ones((8, 16, 16, 64))
            for kernel in kernels:
                x = conv2d(x, kernel)
            return x.sum()

        kernels = [jnp.ones((3, 3, 64, 64))] * layers
        text = jax.jit(jax.grad(loss)).lower(kernels).as_text()
        return len(re.findall(r"stablehlo\.(dot_general|convolution)", text))

    assert products(6) == products(3) > 0
