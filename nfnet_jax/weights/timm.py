"""Conversion of parameters from and to the naming of PyTorch image models (timm).

Kernels are OIHW in timm, gains [O, 1, 1, 1], and squeeze-excite is 1x1 convolutions.
"""

from collections.abc import Mapping

import numpy as np

from nfnet_jax.models.network import Network
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights.names import (
    Entry,
    Path,
    collect,
    layer_shapes,
    locate,
    publish,
)

StateDict = Mapping[str, np.ndarray]

_MODULES = {
    "stem/conv": "stem.conv",
    "stem": "stem.conv",
    **{f"stem/stem_conv{i}": f"stem.conv{i + 1}" for i in range(4)},
    "head/final_conv": "final_conv",
    "head/classifier": "head.fc",
    "shortcut": "downsample.conv",
    "branch/conv0": "conv1",
    "branch/conv1": "conv2",
    "branch/conv1b": "conv2b",
    "branch/conv2": "conv3",
    "branch/squeeze_excite/squeeze": "fc1",
    "branch/squeeze_excite/excite": "fc2",
    "branch/channel_attention/conv": "conv",
}
_LEAVES = {"kernel": "weight", "bias": "bias", "gain": "gain"}


def from_timm(state_dict: StateDict, model: Network) -> dict:
    """Flax parameters of `model` (stacked as its scans need) from a timm state dict.

    Raises:
      UserError: entries that are unknown, missing, of another shape or not finite, by
        name; or `model` is of a family that timm does not have.
    """
    return collect(state_dict, _table(model))


def to_timm(params: Mapping, model: Network) -> dict[str, np.ndarray]:
    """The inverse of `from_timm`: a timm state dict of arrays from Flax parameters.

    `params` are those of `model`, its stacks included. Returns arrays by timm's names,
    kernels [O, C / groups, KH, KW] and layers unstacked.

    Raises:
      UserError: `model` is of a family that timm does not have.
    """
    return publish(params, _table(model))


def _table(model: Network) -> dict[Path, Entry]:
    shapes = layer_shapes(model)
    if not any(path[0] == "stem" and path[-1] == "gain" for path in shapes):
        raise UserError(
            "timm has no network like this model, only normalizer-free ones"
        )
    inside = model.stages[0].transition.branch.attention_inside
    attention = "attn" if inside else "attn_last"
    return {path: _entry(path, shape, attention) for path, shape in shapes.items()}


def _entry(path: Path, shape: tuple[int, ...], attention: str) -> Entry:
    stage, index, place = locate(path)
    *module, leaf = place
    parts = [] if stage is None else ["stages", str(stage), str(index)]
    if leaf == "skip_gain":
        return Entry(".".join([*parts, "skipinit_gain"]), shape, (), ())
    parts += [attention] * ("squeeze_excite" in module or "channel_attention" in module)
    parts += [_module("/".join(module)), _LEAVES[leaf]]
    axes, published = _layout(leaf, shape, "squeeze_excite" in module)
    return Entry(".".join(parts), shape, axes, published)


def _module(place: str) -> str:
    if place not in _MODULES:
        raise UserError(f"timm has no counterpart of {place}")
    return _MODULES[place]


def _layout(leaf: str, shape: tuple[int, ...], pointwise: bool):
    """(axes, published shape): HWIO → OIHW, KIO → OIK, IO → OI and gains [O, 1, 1, 1].

    `pointwise`: an IO kernel that is published as a 1x1 convolution.
    """
    axes = tuple(range(len(shape)))
    if leaf == "kernel":
        axes = (*axes[:-3:-1], *axes[:-2])
    published = tuple(shape[axis] for axis in axes)
    if leaf == "gain" or (leaf == "kernel" and pointwise):
        published += (1,) * (4 - len(published))
    return axes, published
