"""Moments equal NumPy's in networks of any origin, and follow the β schedule."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import open_variables

from nfnet_jax import create_model
from nfnet_jax.analysis import (
    block_pattern,
    check,
    in_order,
    measure,
    measure_gradients,
    predict,
    predict_network,
    predicted_variance,
)
from nfnet_jax.analysis.measure import pooled_share
from nfnet_jax.inference.onnx import unroll
from nfnet_jax.layers.affine import as_affine
from nfnet_jax.models.blocks import Branch
from nfnet_jax.utils.errors import UserError


# Batches that know a channel's variance well; NF-WRN is in test_check.py.
@pytest.mark.parametrize(
    ("name", "shape"),
    [("nf_resnet50", (8, 64, 64, 3)), ("nf_bottleneck_5_16", (4, 32, 32, 3))],
)
def test_variance_after_every_block_is_within_five_percent(name, shape):
    """The prediction is α² more for each block; Gaussian images, open gains."""
    model = create_model(name, 10)
    images = jax.random.normal(jax.random.key(1), shape)
    depths = tuple(len(stage.betas) for stage in model.stages)
    signal = measure(model, open_variables(model, images), images, borders=False)
    ratios = signal.avg_var[1:] / predicted_variance(depths, 0.2)
    np.testing.assert_allclose(ratios, 1, atol=0.05)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("nf_wrn_10_1", 16, {}),
        ("nf_wrn_10_1", 16, {"pooled": True}),
        ("nf_resnet50", 64, {"width_multiplier": 0.25, "depths": (1, 1, 1, 1)}),
    ],
)
def test_without_borders_no_pixel_is_special(name, size, options):
    """Images on a torus may be rolled by whole strides of the network; at a border of
    zeros that changes what is lost there."""
    model = create_model(name, 10, **options)
    images = jax.random.normal(jax.random.key(1), (2, size, size, 3))
    variables = open_variables(model, images)

    def variances(borders, shift):
        rolled = jnp.roll(images, (shift, shift), (1, 2))
        signal = measure(model, variables, rolled, borders=borders)
        return signal.avg_var

    # Half of an image is a whole number of strides.
    torus = variances(False, 0)
    np.testing.assert_allclose(variances(False, size // 2), torus, rtol=1e-4)
    zeros = variances(True, 0)
    assert np.abs(variances(True, size // 2) / zeros - 1).max() > 1e-3
    assert zeros[0] < torus[0] or name == "nf_resnet50"


def test_predicted_variance_resets_at_every_stage():
    np.testing.assert_allclose(
        predicted_variance((3, 2), 0.2), [1.04, 1.08, 1.12, 1.04, 1.08]
    )


def test_scanned_blocks_are_told_apart():
    """Layer by layer, the moments of the same blocks one after another."""
    model = create_model("nf_wrn_46_1", 10)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    variables = open_variables(model, images)
    signal = measure(model, variables, images)
    apply, parts = unroll(model, variables)

    @jax.jit
    def branch_variances(parts, images):
        variances = []

        def record(call, args, kwargs, context):
            if isinstance(context.module, Branch) and context.method_name == "__call__":
                unscaled = as_affine(call(*args[:1], **kwargs))
                variances.append(unscaled.value().var((0, 1, 2)).mean())
                return unscaled.times(args[1])
            return call(*args, **kwargs)

        with nn.intercept_methods(record):
            apply(parts, images)
        return variances

    branches = branch_variances(parts, images)
    for stage in range(3):
        of_stage = [b for b in signal.blocks if b.name.startswith(f"stages_{stage}/")]
        assert [block.name.partition("/")[2] for block in of_stage] == [
            "transition",
            *(f"blocks[{i}]" for i in range(6)),
        ]
        expected = branches[7 * stage : 7 * stage + 7]
        measured = [block.branch_var for block in of_stage]
        np.testing.assert_allclose(measured, expected, rtol=1e-5)
        names = [conv.name for conv in of_stage[2].convs]
        assert names == [f"stages_{stage}/blocks[1]/branch/conv{i}" for i in range(2)]


class Bottleneck(nn.Module):
    """Somebody else's code: a post-activation block with BatchNorm."""

    filters: int

    @nn.compact
    def __call__(self, x, train):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        y = nn.relu(norm()(nn.Conv(self.filters, (1, 1), use_bias=False)(x)))
        y = nn.relu(norm()(nn.Conv(self.filters, (3, 3), use_bias=False)(y)))
        y = norm()(nn.Conv(4 * self.filters, (1, 1), use_bias=False)(y))
        if x.shape != y.shape:
            x = nn.Conv(4 * self.filters, (1, 1), name="projection")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = True):
        x = nn.relu(nn.Conv(8, (3, 3), name="first")(x))
        for filters in (8, 8, 16):
            x = Bottleneck(filters)(x, train)
        return nn.Dense(10)(x.mean((1, 2)))


def test_a_network_of_somebody_else_is_measured_as_it_is():
    model = ResNet()
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    signal = measure(
        model,
        variables,
        images,
        blocks=r"Bottleneck_\d+$",
        branches=r"BatchNorm_2$",
        shortcuts="projection$",
        train=True,
    )
    watched = functools.partial(
        model.apply,
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=True,
    )
    _, seen = jax.jit(watched)(variables, images)
    for i, block in enumerate(signal.blocks):
        assert block.name == f"Bottleneck_{i}"
        found = seen["intermediates"][block.name]
        output = np.asarray(found["__call__"][0], float)
        branch = np.asarray(found["BatchNorm_2"]["__call__"][0], float)
        expected = output.var((0, 1, 2)).mean()
        np.testing.assert_allclose(signal.avg_var[i + 1], expected, rtol=1e-4)
        squared_means = np.square(output.mean((0, 1, 2))).mean()
        np.testing.assert_allclose(signal.avg_sq_mean[i + 1], squared_means, rtol=1e-4)
        expected = branch.var((0, 1, 2)).mean()
        np.testing.assert_allclose(block.branch_var, expected, rtol=1e-4)
        names = [conv.name.partition("/")[2] for conv in block.convs]
        assert names == ["Conv_0", "Conv_1", "Conv_2"]
    labels = jnp.arange(4)
    gradients = measure_gradients(model, variables, images, labels, train=True)
    names = [gradient.name for gradient in in_order(gradients, signal)]
    assert names[0] == "first/kernel" and names[-1] == "Dense_0/kernel"
    assert len(names) == 13 and all(gradient.norm > 0 for gradient in gradients)


def test_gradients_are_those_of_the_loss():
    model = nn.Sequential([lambda x: x.mean((1, 2)), nn.Dense(3)])
    images = jax.random.normal(jax.random.key(0), (5, 2, 2, 4))
    labels = jnp.asarray([0, 1, 2, 0, 1])
    variables = model.init(jax.random.key(1), images)
    (gradient,) = measure_gradients(model, variables, images, labels)
    features = np.asarray(images, float).mean((1, 2))
    kernel = np.asarray(variables["params"]["layers_1"]["kernel"], float)
    shares = np.exp(features @ kernel)
    shares /= shares.sum(1, keepdims=True)
    expected = np.linalg.norm(features.T @ (shares - np.eye(3)[labels]) / 5)
    np.testing.assert_allclose(gradient.norm, expected, rtol=1e-5)
    ratio = expected / np.linalg.norm(kernel)
    np.testing.assert_allclose(gradient.ratio, ratio, rtol=1e-5)


@pytest.mark.parametrize("smooth", [1, 2, 4])
def test_pooled_share_is_what_pooling_leaves(smooth):
    """Shares of noise, and of noise shifted and added so that neighbours are alike."""
    noise = jax.random.normal(jax.random.key(0), (8, 64, 64, 4))
    images = sum(jnp.roll(noise, shift, (1, 2)) for shift in np.ndindex(smooth, smooth))
    pooled = images.reshape(8, 32, 2, 32, 2, 4).mean((2, 4))
    left = pooled.var((0, 1, 2)).mean() / images.var((0, 1, 2)).mean()
    np.testing.assert_allclose(pooled_share(images), left, rtol=0.02)
    if smooth == 1:
        np.testing.assert_allclose(left, 0.25, rtol=0.03)


@pytest.mark.parametrize(
    ("name", "options", "transitions"),
    [
        ("nfnet_f0", {"width_multiplier": 0.25, "group_width": 32}, 3),
        ("nf_regnet_b0", {"depths": (1, 2, 3, 3)}, 4),
    ],
)
def test_pooled_transitions_lose_what_the_correlation_says(name, options, transitions):
    model = create_model(name, 10, **options)
    images = jax.random.normal(jax.random.key(1), (2, 128, 128, 3))
    signal = measure(model, open_variables(model, images), images)
    pooled = [block for block in signal.blocks if block.pooling]
    assert len(pooled) == transitions
    for block in pooled:
        np.testing.assert_allclose(*block.pooling, rtol=0.05)
        assert block.pooling.measured < 0.4
    predictions = predict_network(model, signal)
    assert check(signal, predictions, 0.1) is None
    # Relative to its first block, a stage grows by the schedule, and by what the
    # activation leaves of a small signal, alone.
    inside = [i for i, b in enumerate(signal.blocks) if "/blocks" in b.name]
    ratios = signal.avg_var[1:] / [p.output_var for p in predictions]
    np.testing.assert_allclose(ratios[inside], 1, atol=0.03)


def test_the_prediction_knows_the_pool_gain():
    """Without it, the prediction would be a quarter of what is measured."""
    model = create_model("nf_wrn_10_4", 10, pooled=True, pool_gain=2.0)
    images = jax.random.normal(jax.random.key(1), (4, 64, 64, 3))
    signal = measure(model, open_variables(model, images), images)
    assert check(signal, predict_network(model, signal), 0.1) is None


def test_networks_without_residual_blocks_are_measured_by_stages():
    model = create_model("nf_air_8", 10)
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    variables = open_variables(model, images)
    signal = measure(model, variables, images, blocks=block_pattern(model))
    assert [block.name for block in signal.blocks] == [f"stages_{i}" for i in range(3)]
    assert np.isnan(signal.res_avg_var).all()
    assert predict_network(model, signal) is None


@pytest.mark.parametrize("name", ["bn_wrn_10_1", "fixup_wrn_10_1", "timm_nf_resnet50"])
def test_only_the_schedules_own_networks_are_predicted(name):
    assert predict_network(create_model(name, 10), None) is None


def test_mistakes_are_told():
    model, images = ResNet(), jnp.zeros((1, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    with pytest.raises(UserError, match=r"blocks='Block_'.*Bottleneck_0/Conv_0"):
        measure(model, variables, images, blocks="Block_")
    signal = measure(model, variables, images, blocks="Bottleneck_.$")
    with pytest.raises(UserError, match="5 blocks, expected the 3"):
        predict(signal, (2, 3), 0.2)
