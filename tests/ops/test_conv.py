"""Every lowering against `lax.conv_general_dilated`, values and gradients."""

import contextlib
import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nfnet_jax.ops.conv import conv2d, native_gradients, native_operations


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


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape), dtype)


def assert_matches_lax(x, kernel, strides, padding, groups):
    """Compares values and gradients, to 1e-5 of the largest of each array."""

    def derivatives(function, gradient):
        y, vjp = jax.vjp(function, x, kernel)
        return y, *vjp(gradient)

    static = {"strides": strides, "padding": padding, "groups": groups}
    ours = jax.jit(lambda x, k: conv2d(x, k, **static))
    stock = jax.jit(lambda x, k: reference(x, k, **static))
    gradient = random(*jax.eval_shape(stock, x, kernel).shape, seed=1)
    for found, expected in zip(
        derivatives(ours, gradient), derivatives(stock, gradient), strict=True
    ):
        largest = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


CASES = [
    *itertools.product(
        [(8, 7)],
        [(1, 1), (3, 3), (5, 2), (7, 7)],
        [(1, 1), (2, 2)],
        ["SAME", "VALID", ((1, 2), (0, 1))],
        [1, 2],
    ),
    *itertools.product([(2, 2), (5, 1)], [(3, 3)], [(1, 1)], ["SAME"], [1, 2]),
    # Strides wider than the kernel.
    ((9, 8), (1, 1), (2, 3), ((1, 1), (2, 0)), 1),
    ((9, 8), (2, 3), (3, 2), ((1, 1), (2, 0)), 1),
]
"""Sizes of images and windows, strides, padding, groups."""


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)))
def test_values_and_gradients_match_lax(case):
    size, window, strides, padding, groups = case
    kernel = random(*window, 4 // groups, 6, seed=2)
    assert_matches_lax(random(3, *size, 4), kernel, strides, padding, groups)


@pytest.mark.parametrize("groups, width", [(5, 8), (11, 16), (3, 40), (2, 128)])
def test_groups_of_every_width_match_lax(groups, width):
    """Merged evenly, with a rest, by pairs, and not at all."""
    channels = groups * width
    kernel = random(3, 3, width, 2 * channels, seed=2)
    assert_matches_lax(random(2, 5, 6, channels), kernel, (1, 1), "SAME", groups)


@pytest.mark.parametrize(
    "size, channels, stride",
    [((4, 3), (512, 256), 1), ((8, 8), (128, 144), 1), ((7, 10), (40, 24), 2)],
)
def test_many_channels_match_lax(size, channels, stride):
    """Products for few pixels, minimal filtering, and products over skipped pixels."""
    x, kernel = random(16, *size, channels[0]), random(3, 3, *channels, seed=2)
    assert_matches_lax(x, kernel, (stride, stride), "SAME", 1)


@pytest.mark.parametrize("split", [1, 3])
@pytest.mark.parametrize(
    "size, static",
    [((3, 3), ((2, 1), ((1, 1), (0, 1)), 2)), ((1, 1), ((1, 1), ((0, 0), (0, 0)), 1))],
)
def test_native_lowering_of_accelerators_matches_lax(size, static, split):
    """Split channels are those of the whole signal, group after group."""
    groups = static[-1]
    x, kernel = random(2, 7, 8, 4), random(*size, 4 // groups, 6, seed=2)
    expected, vjp = jax.vjp(lambda x, k: reference(x, k, *static), x, kernel)
    grad = expected.reshape(*expected.shape[:3], split, -1) if split > 1 else expected
    grads = native_gradients(*static, split, x, kernel, grad)
    chex.assert_trees_all_close(grads, vjp(expected), rtol=1e-5, atol=1e-4)
    grads = native_gradients(*static, split, x.reshape(2, 7, 8, 2, 2), kernel, grad)
    assert grads[0].shape == (2, 7, 8, 2, 2)
    x_grad = grads[0].reshape(x.shape)
    chex.assert_trees_all_close(x_grad, vjp(expected)[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("native", [False, True])
def test_split_channels_are_those_of_the_whole_signal(native):
    """Through a 1x1 and a grouped convolution, with their gradients, on this CPU."""
    x, first = random(2, 6, 6, 4), random(1, 1, 4, 8, seed=2)
    second = random(3, 3, 4, 6, seed=3)

    def loss(split, x, first, second):
        with native_operations() if native else contextlib.nullcontext():
            y = conv2d(x, first, split=split)
            assert y.ndim == (5 if split > 1 else 4)
            return jnp.square(conv2d(y, second, groups=2)).sum()

    whole, parts = (
        jax.value_and_grad(functools.partial(loss, split), (0, 1, 2))(x, first, second)
        for split in (1, 2)
    )
    chex.assert_trees_all_close(whole, parts, rtol=1e-5)
    with pytest.raises(ValueError, match="split 3"):
        conv2d(x, first, split=3)


def test_bfloat16_stays_bfloat16():
    x, kernel = jnp.ones((2, 4, 4, 3), jnp.bfloat16), jnp.ones((3, 3, 3, 2))
    grads = jax.grad(lambda x, k: conv2d(x, k).sum().astype(jnp.float32), (0, 1))
    x_grad, kernel_grad = grads(x, kernel.astype(jnp.bfloat16))
    assert conv2d(x, kernel.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert x_grad.dtype == kernel_grad.dtype == jnp.bfloat16


def test_strided_gradients_of_bfloat16_are_rounded_once():
    x = random(2, 8, 8, 32, dtype=jnp.bfloat16)
    kernel = random(3, 3, 32, 48, seed=2, dtype=jnp.bfloat16)
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
