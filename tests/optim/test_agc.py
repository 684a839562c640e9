"""AGC against its formula, optax, and a loop over layers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nfnet_jax.optim.agc import adaptive_gradient_clipping
from nfnet_jax.utils.errors import UserError


def random_tree(seed, scale=1.0):
    rng = np.random.RandomState(seed)
    shapes = {
        "stem": {"kernel": (3, 3, 3, 8), "gain": (8,), "bias": (8,)},
        "grouped": {"kernel": (3, 3, 2, 8)},
        "dense": {"kernel": (8, 5), "bias": (5,)},
        "skip": {"skip_gain": ()},
    }
    return jax.tree.map(
        lambda s: jnp.asarray(scale * rng.standard_normal(s), jnp.float32),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple),
    )


def clip(grads, params, clipping, eps=1e-3, **options):
    agc = adaptive_gradient_clipping(clipping, eps, **options)
    return agc.update(grads, agc.init(params), params)[0]


@pytest.mark.parametrize("clipping", [0.01, 0.16, 1.0])
def test_unstacked_parameters_are_clipped_as_optax_does(clipping):
    params, grads = random_tree(0), random_tree(1, 0.3)
    theirs = optax.adaptive_grad_clip(clipping, eps=1e-3)
    expected, _ = theirs.update(grads, theirs.init(params), params)
    chex.assert_trees_all_close(clip(grads, params, clipping), expected, rtol=1e-5)


def test_clipping_may_be_an_array_of_a_compiled_step():
    """`optax.inject_hyperparams` makes such arrays, for schedules."""
    params, grads = random_tree(0), random_tree(1, 0.3)
    agc = optax.inject_hyperparams(adaptive_gradient_clipping)(clipping=0.05)
    found, _ = jax.jit(agc.update)(grads, agc.init(params), params)
    chex.assert_trees_all_close(found, clip(grads, params, 0.05), rtol=1e-6)


def test_stacks_of_other_programs_are_found_by_their_path():
    params, grads = random_tree(0), random_tree(1, 2.0)

    def stack(tree):
        return {"mine": [jax.tree.map(lambda x: jnp.stack([x, 3 * x]), tree)]}

    agc = adaptive_gradient_clipping(0.05, stacked="^mine/0/")
    clipped, _ = agc.update(stack(grads), optax.EmptyState(), stack(params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], 3 * b, rtol=1e-5),
        clipped["mine"][0],
        clip(grads, params, 0.05),
    )


@pytest.mark.parametrize("name", ["plain", "stages_0"])
def test_blocks_of_other_programs_are_no_stacks(name):
    """`blocks` may be plain kernels, even those of a `stages_0`."""
    params, grads = ({name: {"blocks": random_tree(s, 3.0)}} for s in (0, 1))
    chex.assert_trees_all_equal(
        clip(grads, params, 0.05)[name]["blocks"],
        clip(grads[name]["blocks"], params[name]["blocks"], 0.05),
    )


@pytest.mark.parametrize(
    ("exclude", "exempt"),
    [
        ((), ()),
        (("dense", "skip_gain"), ("dense/kernel", "dense/bias", "skip/skip_gain")),
        (["^stem/.*n"], ("stem/kernel", "stem/gain")),
        ("bias", ("stem/bias", "dense/bias")),
        ("dense", ("dense/kernel", "dense/bias")),
    ],
)
def test_excluded_parameters_are_left_alone_and_the_others_clipped(exclude, exempt):
    params, grads = random_tree(0), random_tree(1, 2.0)
    found = jax.tree_util.tree_leaves_with_path(
        clip(grads, params, 0.01, exclude=exclude)
    )
    clipped = jax.tree.leaves(clip(grads, params, 0.01))
    rows = zip(found, jax.tree.leaves(grads), clipped, strict=True)
    for (path, leaf), grad, small in rows:
        name = "/".join(key.key for key in path)
        np.testing.assert_array_equal(leaf, grad if name in exempt else small)
        assert np.any(np.asarray(grad) != np.asarray(small))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"exclude": ["dense", "skipgain"]}, "exclude: 'skipgain'.*'skip_gain'"),
        ({"exclude": "dense,skip_gain"}, "exclude: 'dense,skip_gain' matches no"),
        ({"exclude": "["}, "exclude: '\\[' is not a regular expression"),
        ({"exclude": "[dense,skip]"}, "exclude: '\\[dense,skip\\]' exempts all"),
        ({"exclude": ""}, "exclude: '' exempts all"),
        ({"stacked": "blocks/"}, "stacked: 'blocks/' matches no parameter"),
    ],
)
def test_patterns_of_nothing_and_of_everything_are_refused(options, words):
    with pytest.raises(UserError, match=words) as error:
        clip(random_tree(1), random_tree(0), 0.01, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 1), (1, 2), [0, 1]])
def test_axis_is_that_of_optax(axis):
    params, grads = ({"a": t["stem"]["kernel"]} for t in map(random_tree, (0, 1)))
    theirs = optax.adaptive_grad_clip(0.02, 1e-3, axis)
    expected, _ = theirs.update(grads, theirs.init(params), params)
    agc = adaptive_gradient_clipping(0.02, 1e-3, axis)
    found, _ = agc.update(grads, agc.init(params), params)
    np.testing.assert_allclose(found["a"], expected["a"], rtol=1e-5)
    assert np.abs(found["a"] - clip(grads, params, 0.02)["a"]).max() > 1e-4
