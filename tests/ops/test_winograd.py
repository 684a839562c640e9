"""Minimal filtering against convolutions in float64."""

import functools
import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.ops import winograd
from nfnet_jax.ops.conv import conv2d
from nfnet_jax.ops.cpu_conv import native_conv
from nfnet_jax.utils.jax_versions import enable_x64

SAME = ((1, 1), (1, 1))
LEAST = winograd.LEAST_PIXELS_OF_KERNEL_GRADIENT


def exact(x, kernel, padding=SAME, groups=1):
    return native_conv((1, 1), padding, groups, x, kernel)


def arrays(x_shape, features, groups=1):
    rng = np.random.RandomState(0)
    shape = (3, 3, x_shape[-1] // groups, features)
    return rng.standard_normal(x_shape), rng.standard_normal(shape)


def assert_close(found, expected):
    """Within 1e-5 of the largest value: the transforms amplify roundings tenfold."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize(
    "height, padding, groups",
    [
        *itertools.product(
            [3, 4, 5, 7, 8, 18], [SAME, ((0, 0), (0, 0)), ((2, 0), (1, 2))], [1]
        ),
        (9, SAME, 2),
        (9, SAME, 3),
    ],
)
def test_values_and_gradients_match_float64(height, padding, groups):
    x, kernel = arrays((2, height, 6, 6), 12, groups)
    with enable_x64(True):
        stock = functools.partial(exact, padding=padding, groups=groups)
        y, vjp = jax.vjp(stock, jnp.asarray(x), jnp.asarray(kernel))
        y, (x_grad, kernel_grad) = np.asarray(y), map(np.asarray, vjp(y))
    x, kernel, grad = np.float32(x), np.float32(kernel), np.float32(y)
    turned = tuple((2 - low, 2 - high) for low, high in padding)
    static = (padding, groups)
    assert_close(winograd.convolve(x, kernel, *static), y)
    assert_close(winograd.input_gradient(grad, kernel, turned, groups), x_grad)
    assert_close(winograd.kernel_gradient(x, grad, *static), kernel_grad)


def test_large_convolutions_use_it_and_match_in_both_derivatives():
    """Values, gradients, and the gradient of a function of the gradients."""
    x, kernel = map(np.float32, arrays((4, 16, 16, 128), 128))
    assert winograd.is_faster(x, kernel, (1, 1), SAME, 1)
    assert winograd.is_faster(x, kernel, (1, 1), SAME, 1, LEAST)

    def power(conv):
        return lambda x, k: jnp.square(conv(x, k)).mean()

    def gradient_power(conv):
        def function(x, k):
            grads = jax.grad(power(conv), (0, 1))(x, k)
            return sum(jnp.square(grad).sum() for grad in grads)

        return function

    for function in (power, gradient_power):
        found = jax.jit(jax.grad(function(conv2d), (0, 1)))(x, kernel)
        expected = jax.jit(jax.grad(function(exact), (0, 1)))(x, kernel)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, np.asarray(other))


@pytest.mark.parametrize(
    "change",
    [
        dict(strides=(2, 2)),
        dict(padding=((1, -1), (1, 1))),
        dict(dtype=jnp.bfloat16),
        dict(window=(1, 3)),
        dict(height=2),
        dict(channels=4),
        dict(groups=4),
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_convolutions_stay_as_they_are(change):
    case = dict(strides=(1, 1), padding=SAME, dtype=jnp.float32, window=(3, 3))
    case |= dict(height=32, channels=128, groups=1) | change
    x = jax.ShapeDtypeStruct((8, case["height"], 32, case["channels"]), case["dtype"])
    inputs = case["channels"] // case["groups"]
    shape = (*case["window"], inputs, case["channels"])
    kernel = jax.ShapeDtypeStruct(shape, case["dtype"])
    static = (case["strides"], case["padding"], case["groups"])
    assert not winograd.is_faster(x, kernel, *static)
    assert not winograd.is_faster(x, kernel, *static, LEAST)


def test_forward_mode_is_refused_clearly():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(conv2d, (x, kernel), (x, kernel))


@pytest.mark.parametrize("groups, size", [(1, (32, 33)), (2, (48, 48))])
def test_an_exported_program_takes_any_number_of_images(groups, size):
    kernel = np.float32(arrays((1, 3, 3, 128 // groups), 128)[1])
    (count,) = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, *size, 128), jnp.float32)
    assert winograd.is_faster(images, kernel, (1, 1), SAME, groups)
    convolve = jax.jit(lambda x: conv2d(x, kernel, groups=groups))
    exported = jax.export.export(convolve)(images)
    x = np.float32(arrays((3, *size, 128), 1)[0])
    assert_close(exported.call(x), np.asarray(exact(x, kernel, SAME, groups)))
