"""Counting of operations and of bytes sent, against formulas."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from nfnet_jax.models.registry import create_model
from nfnet_jax.models.statistics import multiply_adds
from nfnet_jax.ops.conv import native_operations
from nfnet_jax.ops.cpu_conv import DIMENSIONS
from nfnet_jax.planning.traffic import collective_bytes
from nfnet_jax.training.flops import matrix_flops


def flops(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    with native_operations():
        return matrix_flops(jax.jit(function).trace(*arguments).jaxpr)


def convolve(x, kernel, stride=1, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
    )


def power(x):
    return lax.scan(lambda y, _: (y @ x, None), x, None, length=11)[0]


def either(x):
    return lax.cond(x[0, 0] > 0, lambda y: y @ y, lambda y: y @ y @ y, x)


@pytest.mark.parametrize(
    ("function", "shapes", "products"),
    [
        (jnp.matmul, [(3, 5), (5, 7)], 3 * 5 * 7),
        (jnp.matmul, [(2, 3, 5), (2, 5, 7)], 2 * 3 * 5 * 7),
        (power, [(4, 4)], 11 * 4**3),
        (either, [(4, 4)], 2 * 4**3),
    ],
)
def test_products_take_two_for_each_of_their_terms(function, shapes, products):
    """A loop counts as often as it runs; of branches the largest counts."""
    assert flops(function, *shapes) == 2 * products


def test_of_branches_for_platforms_that_of_the_platform_counts():
    def product(x):
        return lax.platform_dependent(
            x, cpu=lambda y: y @ y @ y, default=lambda y: y @ y
        )

    jaxpr = jax.jit(product).trace(jnp.zeros((4, 4))).jaxpr
    counts = [matrix_flops(jaxpr, name) for name in ("cpu", "tpu", None)]
    assert counts == [2 * 2 * 4**3, 2 * 4**3, 2 * 2 * 4**3]


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_both_gradients_of_a_convolution_take_as_many_as_itself(stride, groups):
    x, kernel = (2, 8, 8, 16), (3, 3, 16 // groups, 32)
    forward = 2 * (2 * (8 // stride) ** 2 * 32) * (9 * 16 // groups)

    def loss(x, kernel):
        return convolve(x, kernel, stride, groups).sum()

    assert flops(lambda x, k: convolve(x, k, stride, groups), x, kernel) == forward
    assert flops(jax.value_and_grad(loss, (0, 1)), x, kernel) == 3 * forward


@pytest.mark.parametrize("name", ["nf_wrn_22_1", "nf_bottleneck_2_16"])
def test_training_takes_three_times_the_forward_pass(name):
    """Gradients of the images, at most the stem's share, are not computed."""
    model = create_model(name, 10)
    images = jnp.zeros((4, 16, 16, 3))
    key = jax.random.key(0)
    params = jax.eval_shape(model.init, key, images)

    def loss(params, images):
        rngs = {"dropout": key}
        return model.apply(params, images, train=True, rngs=rngs).sum()

    with native_operations():
        jaxpr = jax.jit(jax.value_and_grad(loss)).trace(params, images).jaxpr
    forward = 2 * 4 * multiply_adds(model, (16, 16, 3))
    stem = 2 * 4 * 16 * 16 * 16 * 27
    assert matrix_flops(jaxpr) == 3 * forward - stem
    # The program that runs has both gradients of every convolution.
    jaxpr = jax.jit(jax.value_and_grad(loss)).trace(params, images).jaxpr
    assert matrix_flops(jaxpr, "tpu") == 3 * forward


PROGRAM = """HloModule jit_step

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = bf16[16,4]{1,0} all-gather(%piece), dimensions={0}
  %r = f32[2,4]{1,0} reduce-scatter(%whole), dimensions={0}, to_apply=%add
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %s = (f32[10]{0}, f32[2,5]{1,0}) all-reduce(%a, %b), to_apply=%add
  %w = (s32[], f32[8]) while(%t), body=%body, backend={"known_trip_count":{"n":"3"}}
  %p = pred[6]{0} collective-permute(%q), source_target_pairs={{0,1}}
}
"""


def test_bytes_sent_are_those_of_rings_and_of_every_turn_of_a_loop():
    sent = collective_bytes(PROGRAM, 4)
    assert sent == {
        "all-reduce": 2 * 3 / 4 * (40 + 40),
        "all-gather": 3 * 3 / 4 * (16 * 4 * 2),
        "reduce-scatter": 3 * 3 / 4 * (4 * 2 * 4 * 4),
        "collective-permute": 6,
    }
