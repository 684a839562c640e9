"""Conversion of parameters, layer by layer, between Flax and published names.

A naming is a table with an `Entry` for the name and layout of every parameter.
`collect` and `publish` convert by such a table in either direction.
"""

import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from nfnet_jax.models.network import Network
from nfnet_jax.models.stage import stack_blocks, unstack_blocks
from nfnet_jax.utils.errors import UserError, nearest

Path = tuple
"""Keys of a parameter: ("stages_0", "blocks_2", "branch", "conv0", "kernel")."""
Shapes = dict[Path, tuple[int, ...]]
CLASSIFIER = ("head", "classifier")


class Entry(NamedTuple):
    """The published form of an array of `own_shape`: transposed, then reshaped."""

    name: Hashable
    own_shape: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def publish(self, array: np.ndarray) -> np.ndarray:
        laid_out = np.asarray(array).transpose(self.axes).reshape(self.shape)
        # safetensors writes the memory of an array, whatever its strides are.
        return np.asarray(laid_out, order="C")

    def read(self, array: np.ndarray) -> np.ndarray:
        transposed = tuple(self.own_shape[axis] for axis in self.axes)
        return array.reshape(transposed).transpose(np.argsort(self.axes))


def collect(published: Mapping[Any, np.ndarray], table: dict[Path, Entry]) -> dict:
    """Flax parameters, stacked as scans need, from published ones.

    A common prefix of all names, such as "module.", is left out. Without a published
    classifier, the result has none.

    Raises:
      UserError: entries that are unknown, missing, of another shape, not of floats or
        not finite, by name; or names of several networks.
    """
    entries = {_text(entry.name): (path, entry) for path, entry in table.items()}
    arrays = _without_prefix({_text(k): v for k, v in published.items()}, entries)
    head = {name for name, (path, _) in entries.items() if path[:2] == CLASSIFIER}
    if not arrays.keys() & head:
        entries = {name: entries[name] for name in entries.keys() - head}
    unknown = sorted(arrays.keys() - entries.keys())
    if unknown:
        example = f"; expected names such as {min(entries)!r}"
        _refuse("unknown", unknown, nearest(unknown[0], sorted(entries)) or example)
    _refuse("missing", entries.keys() - arrays.keys())
    _refuse(
        "misshapen",
        (
            f"{name} {np.shape(arrays[name])}, expected {entry.shape}"
            f"{_channels(path, np.shape(arrays[name]), entry)}"
            for name, (path, entry) in entries.items()
            if np.shape(arrays[name]) != entry.shape
        ),
    )
    types = {name: np.asarray(array).dtype for name, array in arrays.items()}
    _refuse(
        "quantized",
        (f"{n} of {t}, expected floats" for n, t in types.items() if t.kind != "f"),
    )
    _refuse("not finite", (n for n, a in arrays.items() if not np.isfinite(a).all()))
    found = {name: np.asarray(array) for name, array in arrays.items()}
    layers = {path: entry.read(found[name]) for name, (path, entry) in entries.items()}
    return stack_blocks(traverse_util.unflatten_dict(layers))


def publish(params: Mapping, table: dict[Path, Entry]) -> dict[Any, np.ndarray]:
    """The inverse of `collect`."""
    arrays = unstack_blocks(jax.tree.map(np.asarray, params))
    layers = traverse_util.flatten_dict(arrays)
    return {entry.name: entry.publish(layers[path]) for path, entry in table.items()}


def layer_shapes(model: Network) -> Shapes:
    """Shape of every parameter, those of scanned blocks layer by layer."""

    def init(key, images):
        return unstack_blocks(model.init(key, images)["params"])

    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(init, jax.random.key(0), images)
    flat = traverse_util.flatten_dict(params)
    return {path: leaf.shape for path, leaf in flat.items()}


class Site(NamedTuple):
    """Path `place` of a parameter within the block `index` of stage `stage`.

    Outside of the stages, these two are None and `place` is the whole path.
    """

    stage: int | None
    index: int | None  # type: ignore[assignment]
    place: tuple[str, ...]


def locate(path: Path) -> Site:
    """The site of a parameter; the transition block of a stage is its block 0."""
    if not path[0].startswith("stages_"):
        return Site(None, None, path)
    stage = int(path[0].removeprefix("stages_"))
    if path[1] == "transition":
        return Site(stage, 0, path[2:])
    return Site(stage, 1 + int(path[1].removeprefix("blocks_")), path[2:])


def _without_prefix(
    arrays: dict[str, np.ndarray], known: Collection[str]
) -> dict[str, np.ndarray]:
    """The same arrays without the common prefix of all known names."""
    prefixes: Counter[str] = Counter()
    for name in arrays:
        starts = [0, *(found.end() for found in re.finditer("[./:]", name))]
        found = [name[:start] for start in starts if name[start:] in known]
        prefixes.update(found[:1])
    if len(prefixes) > 1:
        listed = ", ".join(f"{p!r} before {n}" for p, n in sorted(prefixes.items()))
        raise UserError(
            f"the names of parameters begin in {len(prefixes)} ways, {listed} of them: "
            "expected one network, its names all beginning alike"
        )
    prefix = next(iter(prefixes), "")
    return {name.removeprefix(prefix): array for name, array in arrays.items()}


def _channels(path: Path, shape: tuple[int, ...], entry: Entry) -> str:
    """A hint if only the channels of the images differ, else an empty string."""
    if path[0] != "stem" or len(shape) != 4 or len(entry.shape) != 4:
        return ""
    axis = entry.axes.index(2)
    others = [i for i in range(4) if i != axis]
    if entry.shape[axis] != 3 or any(shape[i] != entry.shape[i] for i in others):
        return ""
    return f" (they are for images of {shape[axis]} channels, not 3)"


def _text(name: Hashable) -> str:
    return ":".join(name) if isinstance(name, tuple) else str(name)


def _refuse(problem: str, names: Iterable[str], hint: str = "") -> None:
    names = sorted(names)
    if names:
        others = f" and {len(names) - 5} more" if names[5:] else ""
        raise UserError(
            f"{len(names)} {problem} parameters for this model: "
            f"{'; '.join(names[:5])}{others}{hint}"
        )
