"""Five steps of every optimizer against float64 NumPy that loops over layers and units.

The parameters have stacked and single layers, among them layers of zeros and of tiny
weights; so have the gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from nfnet_jax.config import base_config
from nfnet_jax.optim.agc import clip_fraction
from nfnet_jax.optim.factory import build_optimizer
from nfnet_jax.optim.groups import parameter_groups
from nfnet_jax.optim.sam import ascend, sam_value_and_grad
from nfnet_jax.optim.tree import gradient_ratios, layer_names
from nfnet_jax.utils.jax_versions import enable_x64

STEPS = 5
RATES = (0.05, 0.1, 0.08, 0.05, 0.01)
TINY = 1e-12
# name: shape, is a stack of layers, decays, is under AGC
LEAVES = {
    "stem/kernel": ((3, 3, 2, 4), False, True, True),
    "stem/bias": ((4,), False, False, True),
    "stages_0/blocks/conv/kernel": ((4, 3, 3, 2, 4), True, True, True),
    "stages_0/blocks/conv/gain": ((4, 4), True, False, True),
    "stages_0/blocks/skip_gain": ((4,), True, False, False),
    "stages_0/transition/conv/kernel": ((1, 1, 4, 4), False, True, True),
    "head/classifier/kernel": ((4, 5), False, True, False),
}
LAYER_SCALES = np.array([1.0, 0.0, TINY, 30.0])


def random_leaves(seed, scales):
    """Float64 values that float32 holds; the layers of a stack differ in scale."""
    rng = np.random.RandomState(seed)
    leaves = {}
    for name, (shape, stacked, *_) in LEAVES.items():
        leaf = rng.standard_normal(shape)
        if stacked:
            leaf *= scales.reshape(-1, *[1] * (len(shape) - 1))
        leaves[name] = leaf.astype(np.float32).astype(np.float64)
    return leaves


def start():
    leaves = random_leaves(0, LAYER_SCALES)
    leaves["stem/bias"][:] = 0
    leaves["stages_0/blocks/skip_gain"][:] = 0
    leaves["stages_0/transition/conv/kernel"][..., 1] *= TINY
    return leaves


def gradients(step):
    leaves = random_leaves(10 + step, LAYER_SCALES[[3, 0, 1, 2]])
    leaves["stem/kernel"][..., 0] = 0
    leaves["stem/kernel"][..., 1] *= TINY
    return leaves


def as_tree(leaves):
    arrays = {name: jnp.asarray(leaf) for name, leaf in leaves.items()}
    return traverse_util.unflatten_dict(arrays, sep="/")


def layers(name, *arrays):
    """The layers of a leaf one by one, as views."""
    if not LEAVES[name][1]:
        return [arrays]
    return [[array[i, ...] for array in arrays] for i in range(len(arrays[0]))]


def assert_close(tree, expected):
    """1e-6 of the largest number in every layer."""
    for name, found in traverse_util.flatten_dict(tree, sep="/").items():
        for layer, (a, b) in enumerate(layers(name, found, expected[name])):
            error, size = np.max(np.abs(a - b)), np.max(np.abs(b))
            assert error <= 1e-6 * size, (name, layer, error, size)


def units(array):
    if array.ndim < 2:
        return [array]
    return [array[..., unit] for unit in range(array.shape[-1])]


def clipped(grads, weights, clipping, eps):
    """Gradients after AGC, and the share of the units that were clipped."""
    result = {name: grad.copy() for name, grad in grads.items()}
    flags = []
    for name, (_, _, _, under_agc) in LEAVES.items():
        for grad, weight in layers(name, result[name], weights[name]):
            for g, w in zip(units(grad), units(weight), strict=True):
                bound = clipping * max(np.sqrt(np.sum(w**2)), eps)
                norm = np.sqrt(np.sum(g**2))
                if under_agc:
                    flags.append(norm > bound)
                if under_agc and norm > bound:
                    g *= bound / max(norm, 1e-6)
    return result, np.mean(flags)


def configured(**changes):
    config = base_config()
    config.optim.weight_decay = 0.02
    config.optim.agc.clipping = 0.0
    config.update_from_flattened_dict(changes)
    return config.optim


def run(config, steps=STEPS):
    params = as_tree(start())
    optimizer = build_optimizer(
        config, lambda step: jnp.asarray(RATES)[step], parameter_groups(config, params)
    )
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for step in range(steps):
        updates, state = update(as_tree(gradients(step)), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def decay_of(name):
    return 0.02 if LEAVES[name][2] else 0.0


@pytest.mark.parametrize("clipping", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_after_clipping(clipping, nesterov):
    weights = start()
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    for step in range(STEPS):
        grads = gradients(step)
        if clipping:
            grads, _ = clipped(grads, weights, clipping, 1e-3)
        for name, w in weights.items():
            g = grads[name] + decay_of(name) * w
            velocity[name] = 0.9 * velocity[name] + g
            direction = g + 0.9 * velocity[name] if nesterov else velocity[name]
            w -= RATES[step] * direction
    changes = {"optim.agc.clipping": clipping, "optim.nesterov": nesterov}
    assert_close(run(configured(**changes)), weights)


# In float32, 1 − 0.999^t is 1e-5 off: the default is tested in float64.
adam = pytest.mark.parametrize(("b2", "double"), [(0.99, False), (0.999, True)])


def adam_directions(weights, b2):
    """Per step: m̂ / (√v̂ + ε) of every leaf."""
    m = {name: np.zeros_like(w) for name, w in weights.items()}
    v = {name: np.zeros_like(w) for name, w in weights.items()}
    for step in range(STEPS):
        directions = {}
        for name, g in gradients(step).items():
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            mean = m[name] / (1 - 0.9 ** (step + 1))
            square = v[name] / (1 - b2 ** (step + 1))
            directions[name] = mean / (np.sqrt(square) + 1e-8)
        yield directions


@pytest.mark.promotes
@adam
def test_adamw(b2, double):
    weights = start()
    for rate, directions in zip(RATES, adam_directions(weights, b2), strict=True):
        for name, w in weights.items():
            w -= rate * (directions[name] + decay_of(name) * w)
    config = configured(**{"optim.name": "adamw", "optim.adam.b2": b2})
    with enable_x64(double):
        assert_close(run(config), weights)


@pytest.mark.promotes
@adam
def test_lamb_rescales_layer_by_layer(b2, double):
    weights = start()
    for rate, directions in zip(RATES, adam_directions(weights, b2), strict=True):
        for name, leaf in weights.items():
            for w, u in layers(name, leaf, directions[name]):
                u = u + decay_of(name) * w
                sizes = np.sqrt(np.sum(w**2)), np.sqrt(np.sum(u**2))
                if LEAVES[name][2] and all(sizes):
                    u = u * sizes[0] / sizes[1]
                w -= rate * u
    config = configured(**{"optim.name": "lamb", "optim.adam.b2": b2})
    with enable_x64(double):
        assert_close(run(config), weights)


@pytest.mark.parametrize("scale", [1.0, TINY, 0.0])
def test_ascent_step(scale):
    grads = {name: scale * grad for name, grad in gradients(0).items()}
    norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    expected = {n: 0.05 * g / norm if norm else g for n, g in grads.items()}
    zeros = as_tree({name: 0 * grad for name, grad in grads.items()})
    assert_close(ascend(zeros, as_tree(grads), 0.05), expected)


def test_gradients_of_any_loss_after_the_ascent():
    weights, factor = np.array([3.0, -4.0]), np.array([1.0, 2.0])

    def loss(params, factor):
        value = jnp.sum(factor * params["w"] ** 2)
        return value, {"seen": params["w"]}

    slope = 2 * factor * weights
    above = weights + 0.5 * slope / np.sqrt(np.sum(slope**2))
    for function, has_aux in ((loss, True), (lambda p, f: loss(p, f)[0], False)):
        step = jax.jit(sam_value_and_grad(function, 0.5, has_aux=has_aux))
        value, grads = step({"w": jnp.asarray(weights)}, jnp.asarray(factor))
        if has_aux:
            value, aux = value
            np.testing.assert_allclose(aux["seen"], above, rtol=1e-6)
        np.testing.assert_allclose(value, np.sum(factor * above**2), rtol=1e-6)
        np.testing.assert_allclose(grads["w"], 2 * factor * above, rtol=1e-6)


def test_sam_passes_keyword_arguments_on():
    """Among them one that is called as its own parameter is."""

    def loss(w, scale, *, params, train):
        return params * scale * jnp.sum(w**2) if train else jnp.nan

    found = sam_value_and_grad(loss, 0.5)(jnp.ones(1), 2.0, params=3.0, train=True)
    assert float(found[0]) == pytest.approx(6 * 1.5**2)
    assert float(found[1][0]) == pytest.approx(12 * 1.5)


@pytest.mark.parametrize("clipping", [1e-4, 0.3, 1e9])
def test_share_of_clipped_units(clipping):
    config = configured(**{"optim.agc.clipping": clipping})
    _, expected = clipped(gradients(0), start(), clipping, 1e-3)
    grads, params = as_tree(gradients(0)), as_tree(start())
    mask = parameter_groups(config, params).agc
    found = clip_fraction(grads, params, mask, clipping, config.agc.eps)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert found.dtype == jnp.float32


def test_ratios_of_every_kernel_in_the_order_of_their_names():
    grads, weights = gradients(0), start()
    expected = {}
    for name, leaf in weights.items():
        for i, (g, w) in enumerate(layers(name, grads[name], leaf)):
            if name.endswith("kernel"):
                layer = f"{name}[{i}]" if LEAVES[name][1] else name
                norm = max(np.sqrt(np.sum(w**2)), 1e-3)
                expected[layer] = np.sqrt(np.sum(g**2)) / norm
    params = as_tree(weights)
    ratios = np.asarray(gradient_ratios(as_tree(grads), params))
    found = dict(zip(layer_names(params), ratios, strict=True))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [3000.0, 1e-4])
def test_the_ascent_of_halves_has_its_length(scale):
    """Squares of these gradients are beyond what float16 holds."""
    grads = {"w": jnp.full(1000, 0.2 * scale, jnp.float16)}
    moved = ascend({"w": jnp.zeros(1000, jnp.float16)}, grads, 1.0)["w"]
    assert moved.dtype == jnp.float16
    assert np.linalg.norm(np.asarray(moved, float)) == pytest.approx(1.0, rel=1e-3)
