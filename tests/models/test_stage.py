"""Two layouts of a stage's parameters, and the way between them."""

import chex
import numpy as np
import pytest

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
