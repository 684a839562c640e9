"""Two layouts of a stage's parameters, the way between them, and the scan."""

import functools

import chex
import jax
import numpy as np
import pytest
from small_networks import small_network

from nfnet_jax.models import stage
from nfnet_jax.models.stage import stack_blocks, unstack_blocks


def network(blocks):
    """Parameters of a stem and a stage, with `blocks` after the transition."""
    names = ("transition", *(f"blocks_{i}" for i in range(blocks)))
    return {
        "stem": {"kernel": np.ones(2)},
        "stages_0": {
            name: {"conv": {"kernel": np.full(3, i)}, "skip_gain": np.float32(i)}
            for i, name in enumerate(names)
        },
    }


@pytest.mark.parametrize("blocks", [0, 1, 5, 6, 12])
def test_stacks_are_of_long_stages_and_come_apart(blocks):
    tree = network(blocks)
    stacked = stack_blocks(tree)
    if blocks <= stage.UNROLLED_BLOCKS:
        assert stacked == tree
    else:
        kernel = stacked["stages_0"]["blocks"]["conv"]["kernel"]
        assert kernel.shape == (blocks, 3) and stacked["stages_0"].keys() == {
            "transition",
            "blocks",
        }
    chex.assert_trees_all_equal(unstack_blocks(stacked), tree)


@pytest.mark.parametrize("name", ["nf_wrn_46_1", "bn_wrn_46_1"])
def test_a_scan_computes_the_same_as_a_loop(name):
    """In training: values, and the running statistics of BatchNorm."""
    model, variables = small_network(name)
    own = {collection: tree["stages_1"] for collection, tree in variables.items()}
    x = jax.random.normal(jax.random.key(2), (4, 8, 8, 16))
    options = {"train": True, "mutable": ["batch_stats"]}
    scan = model.stages[1]
    found, updated = jax.jit(lambda own: scan.apply(own, x, **options))(own)

    @functools.partial(jax.jit, static_argnames="block")
    def run(block, own, x, beta):
        return block.apply(own, x, beta, 0.0, **options)

    layers, y = {name: unstack_blocks({"stages_1": own[name]}) for name in own}, x
    for index, beta in enumerate(scan.betas):
        key = f"blocks_{index - 1}" if index else "transition"
        single = {name: tree["stages_1"][key] for name, tree in layers.items()}
        y, looped = run(scan.block(index), single, y, beta)
        if index:
            after = unstack_blocks({"stages_1": updated.get("batch_stats", {})})
            after = after["stages_1"].get(key, {})
            expected = looped.get("batch_stats", {})
            chex.assert_trees_all_close(after, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-4)
