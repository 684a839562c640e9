"""Conversion of parameters from and to the naming of the published Haiku code."""

from collections.abc import Mapping

import numpy as np
from flax import traverse_util

from nfnet_jax.models.network import Network
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights.names import (
    Entry,
    Path,
    Shapes,
    collect,
    layer_shapes,
    locate,
    publish,
)

HaikuTree = Mapping[str, Mapping[str, np.ndarray]]
"""{module path: {name: array}}, such as {"NF_ResNet/~/linear": {"w": ..., ...}}."""

_FAMILIES = (
    # Parameters that identify the family (the first match), its root module and the
    # name of its blocks.
    (("stem/stem_conv0/gain",), "NFNet", "nf_block"),
    (("head/final_conv/gain",), "NF_RegNet", "nf_block"),
    (("stem/conv/gain",), "NF_ResNet", "nf_res_block"),
    (("stem/conv/kernel", "stem/bias1"), "FixUp_ResNet", "res_block"),
    (
        ("stem/conv/kernel", "stages_0/transition/skip/skip_gain"),
        "SkipInit_ResNet",
        "nf_res_block",
    ),
)
_MODULES = {
    "stem": "initial_conv",
    "stem/conv": "initial_conv",
    **{f"stem/stem_conv{i}": f"stem_conv{i}" for i in range(4)},
    "head/final_conv": "final_conv",
    "head/classifier": "linear",
    "shortcut": "conv_shortcut",
    **{f"branch/{conv}": conv for conv in ("conv0", "conv1", "conv1b", "conv2")},
    "branch/squeeze_excite/squeeze": "squeeze_excite/~/linear",
    "branch/squeeze_excite/excite": "squeeze_excite/~/linear_1",
}
_SCALARS = {"skip_gain", "scale", "bias1", "bias2"} | {
    f"bias{i}{side}" for i in (1, 2, 3) for side in "ab"
}
"""Parameters of a block or network itself, without a module, under the same name."""


def from_haiku(tree: HaikuTree, model: Network) -> dict:
    """Flax parameters of `model` (stacked as its scans need) from a Haiku tree.

    Raises:
      UserError: entries that are unknown, missing, of another shape or not finite, by
        name; or `model` is of a family that the published code does not have.
    """
    published = traverse_util.flatten_dict({k: dict(v) for k, v in tree.items()})
    return collect(published, _table(model))


def to_haiku(params: Mapping, model: Network) -> dict[str, dict[str, np.ndarray]]:
    """The inverse of `from_haiku`: the published code's parameters from Flax ones.

    `params` are those of `model`, its stacks included. Returns arrays by module and
    name, kernels [KH, KW, C / groups, O] and layers unstacked.

    Raises:
      UserError: `model` is of a family that the published code does not have.
    """
    return traverse_util.unflatten_dict(publish(params, _table(model)))


def _table(model: Network) -> dict[Path, Entry]:
    """Entry of every parameter, with a pair (module, name) as its name."""
    shapes = layer_shapes(model)
    root, block_name = _family(shapes)
    depths = [len(stage.betas) for stage in model.stages]
    table = {}
    for path, shape in shapes.items():
        stage, index, place = locate(path)
        module = [root]
        if stage is not None and index is not None:
            block = sum(depths[:stage]) + index
            module.append(f"{block_name}_{block}" if block else block_name)
        name = place[-1]
        if name not in _SCALARS:
            module.append(_module("/".join(place[:-1])))
            name = _published_leaf(path, shapes)
        full = ("/~/".join(module), name)
        table[path] = Entry(full, shape, tuple(range(len(shape))), shape)
    return table


def _module(place: str) -> str:
    if place not in _MODULES:
        raise UserError(f"the published Haiku code has no counterpart of {place}")
    return _MODULES[place]


def _family(shapes: Shapes) -> tuple[str, str]:
    for evidence, root, block_name in _FAMILIES:
        if all(tuple(path.split("/")) in shapes for path in evidence):
            return root, block_name
    roots = ", ".join(root for _, root, _ in _FAMILIES)
    raise UserError(
        f"the published Haiku code has no network like this model, only {roots}"
    )


def _published_leaf(path: Path, shapes: Shapes) -> str:
    """Convolutions with a gain have a `bias`, other layers `b`."""
    if "bias" not in path:
        return "w" if "kernel" in path else "gain"
    sibling = tuple("gain" if key == "bias" else key for key in path)
    return "bias" if sibling in shapes else "b"
