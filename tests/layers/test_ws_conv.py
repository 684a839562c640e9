"""Scaled weight standardization against its formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.layers.ws_conv import EPS, WSConv, standardize
from nfnet_jax.ops.conv import conv2d
from nfnet_jax.utils.jax_versions import enable_x64


def formula(kernel, gain, eps=1e-4, var_eps=0.0):
    kernel = np.asarray(kernel, np.float64)
    n = kernel[..., 0].size
    result = np.empty_like(kernel)
    for o in range(kernel.shape[-1]):
        w = kernel[..., o]
        variance = np.mean((w - w.mean()) ** 2)
        result[..., o] = (
            gain[o] * (w - w.mean()) / np.sqrt(max(n * (variance + var_eps), eps))
        )
    return result


@pytest.mark.parametrize("shape", [(3, 3, 8, 5), (1, 1, 16, 4), (7, 7, 3, 6)])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_standardize_is_the_formula(shape, scale):
    rng = np.random.RandomState(0)
    kernel = (scale * rng.standard_normal(shape) + 0.2).astype(np.float32)
    gain = rng.standard_normal(shape[-1]).astype(np.float32)
    np.testing.assert_allclose(
        standardize(kernel, gain), formula(kernel, gain), rtol=2e-4, atol=1e-5
    )


def test_eps_bounds_a_nearly_constant_filter_and_its_gradient():
    kernel = jnp.full((3, 3, 4, 2), 0.5).at[0, 0, 0, 0].add(1e-4)
    ones = np.ones(2, np.float32)
    np.testing.assert_allclose(
        standardize(kernel, ones), formula(kernel, ones), atol=1e-5
    )
    grad = jax.grad(lambda k: jnp.sum(standardize(k, ones) ** 2))(kernel)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("var_eps", [0.0, 1e-3])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_the_written_gradient_is_the_derivative_of_the_formula(scale, var_eps):
    """Below the floor at the smaller scale without `var_eps`, above it elsewhere."""
    rng = np.random.RandomState(0)
    with enable_x64(True):
        kernel = jnp.asarray(scale * rng.standard_normal((2, 2, 3, 2)))
        gain, cotangent = (
            jnp.asarray(rng.standard_normal(shape)) for shape in (2, kernel.shape)
        )

        def vjp(function):
            y, pull = jax.vjp(lambda k, g: function(k, g, EPS, var_eps), kernel, gain)
            return y, *pull(cotangent)

        # The formula without the written gradient is what was decorated.
        expected = vjp(standardize.__wrapped__)
        for found, wanted in zip(
            vjp(lambda k, g, eps, v: standardize(k, g, eps=eps, var_eps=v)),
            expected,
            strict=True,
        ):
            assert found.dtype == jnp.float64
            np.testing.assert_allclose(
                found, wanted, atol=1e-12 * np.abs(wanted).max(), rtol=1e-12
            )


def test_bfloat16_kernels_are_standardized_in_float32():
    kernel = np.random.RandomState(0).standard_normal((3, 3, 8, 4))
    rounded = jnp.asarray(kernel, jnp.bfloat16)
    result = standardize(rounded, np.ones(4, np.float32))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(
        result, formula(rounded.astype(jnp.float32), np.ones(4)), atol=1e-5
    )


def test_fan_in_one_is_refused():
    with pytest.raises(ValueError, match="fan-in 1"):
        standardize(jnp.ones((1, 1, 1, 4)), jnp.ones(4))


@pytest.mark.parametrize("groups, strides", [(1, (1, 1)), (2, (2, 2)), (4, (1, 2))])
def test_layer_is_a_convolution_with_the_standardized_kernel(groups, strides):
    rng = np.random.RandomState(1)
    x = rng.standard_normal((2, 9, 8, 8)).astype(np.float32)
    layer = WSConv(12, (3, 3), strides, groups=groups)
    params = layer.init(jax.random.key(0), x)["params"]
    assert {name: p.shape for name, p in params.items()} == {
        "kernel": (3, 3, 8 // groups, 12),
        "gain": (12,),
        "bias": (12,),
    }
    assert (params["gain"] == 1).all() and (params["bias"] == 0).all()
    params = jax.tree.map(lambda p: rng.standard_normal(p.shape), params)
    params = jax.tree.map(lambda p: p.astype(np.float32), params)
    kernel = formula(params["kernel"], params["gain"]).astype(np.float32)
    expected = conv2d(x, kernel, strides=strides, groups=groups)
    np.testing.assert_allclose(
        layer.apply({"params": params}, x),
        np.asarray(expected) + params["bias"],
        atol=2e-4,
    )


def test_unit_normal_input_gives_unit_variance_output():
    x = np.random.RandomState(2).standard_normal((64, 16, 16, 32)).astype(np.float32)
    y, _ = WSConv(64, (3, 3), padding="VALID").init_with_output(jax.random.key(0), x)
    assert np.var(y) == pytest.approx(1, rel=0.02)


def test_without_standardization_the_kernel_is_used_as_it_is():
    x = np.random.RandomState(3).standard_normal((1, 4, 4, 2)).astype(np.float32)
    layer = WSConv(3, (1, 1), standardized=False)
    y, variables = layer.init_with_output(jax.random.key(0), x)
    assert variables["params"].keys() == {"kernel", "bias"}
    np.testing.assert_allclose(y, x @ variables["params"]["kernel"][0, 0], atol=1e-6)


@pytest.mark.parametrize(
    "short, whole",
    [
        (dict(kernel_size=3), dict(kernel_size=(3, 3))),
        (dict(strides=2), dict(strides=(2, 2))),
        (dict(padding=1), dict(padding=((1, 1), (1, 1)))),
        (dict(padding=(1, 2)), dict(padding=((1, 1), (2, 2)))),
        (dict(padding=np.array([1, 2])), dict(padding=((1, 1), (2, 2)))),
        (dict(kernel_size=np.int64(1)), dict(kernel_size=(1, 1))),
        (dict(groups=np.int64(1)), dict(groups=1)),
    ],
)
def test_one_number_is_for_both_axes(short, whole):
    x = np.random.RandomState(4).standard_normal((1, 6, 6, 2)).astype(np.float32)
    results = [
        WSConv(3, **options).init_with_output(jax.random.key(0), x)[0]
        for options in (short, whole)
    ]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(kernel_size=(3, 3, 3)), "kernel_size .3, 3, 3.*two"),
        (dict(kernel_size="3"), "kernel_size '3'.*whole number"),
        (dict(strides=0), "strides 0.*at least 1"),
        (dict(strides=1.5), "strides 1.5.*whole number"),
        (dict(padding="same"), "padding 'same'.*SAME, VALID, symmetric"),
        (dict(padding=((1, 1),)), "padding .*top, bottom"),
        (dict(groups=2), "groups=2 do not fit"),
        (dict(groups=0), "groups=0 do not fit"),
        (dict(groups="2"), "groups='2' do not fit"),
        (dict(padding=-1), "padding -1.*pixels"),
        (
            dict(kernel_size=11, padding=0),
            "11x11 pixels fits nowhere into images of 8x8",
        ),
        (dict(kernel_size=9, padding="VALID"), "9x9 pixels fits nowhere"),
    ],
)
def test_windows_that_are_none_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        WSConv(8, **options).init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))


def test_a_single_image_is_refused():
    with pytest.raises(ValueError, match="expected .N, H, W, C"):
        WSConv(8).init(jax.random.key(0), jnp.ones((8, 8, 3)))
