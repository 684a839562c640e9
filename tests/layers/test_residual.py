"""The β schedule, the skip gain, stochastic depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_jax.layers.dropout import Dropout, StochasticDepth
from nfnet_jax.layers.residual import SkipGain, beta_schedule


def test_schedule_has_the_tabulated_values():
    inverse = [
        [1],
        [0.980581, 0.980581],
        [0.962250, 0.980581, 0.962250, 0.944911, 0.928477, 0.912871],
        [0.898027, 0.980581, 0.962250],
    ]
    for betas, expected in zip(beta_schedule((1, 2, 6, 3), 0.2), inverse, strict=True):
        np.testing.assert_allclose(1 / np.array(betas), expected, atol=1e-6)


def test_ablations_are_the_square_and_one():
    (std,), (var,), (none,) = (
        beta_schedule((3,), 0.2, kind) for kind in ("std", "var", "none")
    )
    np.testing.assert_allclose(np.square(std), var)
    np.testing.assert_allclose(var, [1, 1.04, 1.08])
    assert none == [1, 1, 1]


def test_unknown_beta_is_refused():
    with pytest.raises(ValueError, match="'variance'.*std"):
        beta_schedule((3,), 0.2, "variance")


def test_skip_gain_closes_the_branch_at_first():
    x = jnp.ones((2, 3))
    y, variables = SkipGain().init_with_output(jax.random.key(0), x)
    assert (y == 0).all()
    assert variables["params"]["skip_gain"].shape == ()
    opened = {"params": {"skip_gain": jnp.float32(0.5)}}
    assert (SkipGain().apply(opened, x) == 0.5).all()


def test_stochastic_depth_drops_whole_examples_at_its_rate():
    x = jnp.ones((20_000, 2, 1, 1))
    y = StochasticDepth().apply(
        {}, x, 0.3, np.arange(20_000), train=True, rngs={"dropout": jax.random.key(0)}
    )
    assert set(np.unique(y)) == {0.0, 1.0}, "survivors are not rescaled"
    assert (y[:, 0] == y[:, 1]).all()
    assert np.mean(y) == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(
    "drop",
    [
        StochasticDepth().apply,
        lambda v, x, rate, *e, **o: Dropout(rate).apply(v, x, *e, **o),
    ],
)
def test_examples_are_numbered_from_0_by_default(drop):
    options = {"train": True, "rngs": {"dropout": jax.random.key(1)}}
    x = jnp.ones((32, 3))
    y = drop({}, x, 0.5, **options)
    assert (y == drop({}, x, 0.5, jnp.arange(32), **options)).all()
    assert (y != drop({}, x, 0.5, jnp.arange(1, 33), **options)).any()


def test_stochastic_depth_is_the_identity_in_evaluation_and_at_rate_0():
    x = jnp.arange(6.0).reshape(3, 2)
    assert StochasticDepth().apply({}, x, 0.9, train=False) is x
    assert StochasticDepth().apply({}, x, 0.0, train=True) is x


def test_stochastic_depth_of_one_factor_for_all_examples():
    options = {"train": True, "rngs": {"dropout": jax.random.key(0)}}
    examples = jnp.arange(64)
    factors, each = (
        StochasticDepth().apply({}, jnp.full((n, 1), 3.0), 0.4, examples, **options)
        for n in (1, 64)
    )
    assert (factors == each).all()
    assert set(np.unique(factors)) == {0.0, 3.0}
