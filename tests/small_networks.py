"""One small network of every family, and of timm's variants."""

import jax
import jax.numpy as jnp
from perturbed import perturbed

from nfnet_jax.models.registry import create_model

_RESNET = {"depths": (1, 1, 1, 1), "width_multiplier": 0.125}
_NFNET = {"depths": (1, 2, 1, 1), "widths": (32, 32, 64, 64), "group_width": 8}

OPTIONS = {
    "nf_wrn_10_1": {},
    "nf_bottleneck_1_8": {},
    "nf_air_16": {},
    "nf_resnet50": _RESNET | {"se_ratio": 0.5},
    "timm_nf_resnet50": _RESNET,
    "timm_nf_ecaresnet50": _RESNET,
    "nfnet_f0": _NFNET,
    "dm_nfnet_f0": _NFNET,
    "eca_nfnet_l0": _NFNET,
    "nf_regnet_b0": _NFNET,
    "timm_nf_regnet_b1": _NFNET,
    "bn_wrn_10_1": {},
    "skipinit_wrn_10_1": {},
    "fixup_wrn_10_1": {},
}
"""Overrides by name; none drops blocks or features."""


def small_network(name: str, size: int = 32, **changes):
    """Network and random variables for `size` x `size` pixels, branches open."""
    still = {"drop_rate": 0.0} | (
        {} if name.startswith("nf_air") else {"stochastic_depth": 0.0}
    )
    model = create_model(name, 5, **(still | OPTIONS.get(name, {}) | changes))
    images = jnp.zeros((1, size, size, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    rest = {
        collection: jax.tree.map(lambda leaf: jnp.ones(leaf.shape), tree)
        for collection, tree in shapes.items()
        if collection != "params"
    }
    return model, {"params": perturbed(model, (size, size, 3)), **rest}


def logits_in_training(model, variables, images):
    """Logits [N, 5] as a training step computes them, whatever the family."""
    return model.apply(variables, images, train=True, mutable=["batch_stats"])[0]
