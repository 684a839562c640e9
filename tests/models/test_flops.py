"""Training cost, against sums by hand."""

import jax
import jax.numpy as jnp

from nfnet_jax.models.flops import multiply_adds, training_multiply_adds
from nfnet_jax.models.registry import create_model
from nfnet_jax.optim.tree import matches

SHAPE = (12, 12, 3)


def cost(*patterns):
    model = create_model("nf_air_4", 10)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    frozen = matches(params["params"], patterns, "optim.freeze")
    return training_multiply_adds(model, SHAPE, frozen)


FORWARD = multiply_adds(create_model("nf_air_4", 10), SHAPE)
STEM = 11**2 * 12 * 24
FIRST_TWO = 5**2 * 9 * 24 * 4 + 5**2 * 9 * 4 * 4
LAST = 16 * 10


def test_options_may_be_lists():
    widths, depths = (16, 32), (1, 2)
    tuples = create_model("nf_resnet50", 10, widths=widths, depths=depths)
    lists = create_model("nf_resnet50", 10, widths=[*widths], depths=[*depths])
    assert multiply_adds(lists, SHAPE) == multiply_adds(tuples, SHAPE) > 0


def test_backward_costs_twice_forward():
    assert cost() == 3 * FORWARD


def test_a_frozen_stem_is_computed_forward_only():
    assert cost("stem") == 3 * FORWARD - 2 * STEM


def test_what_only_a_frozen_body_precedes_needs_no_gradients():
    body = FORWARD - LAST
    assert cost("stem", "stages", "moments") == body + 3 * LAST


def test_frozen_kernels_above_trained_layers_pass_gradients_on():
    assert cost("stages_0/.*kernel", "stem") == 3 * FORWARD - 2 * STEM - (
        FIRST_TWO + 5**2 * 9 * 24 * 4
    )
