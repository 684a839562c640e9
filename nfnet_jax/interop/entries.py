"""Parameters one by one: what a scan stacks taken apart, each under a published name.

A format says with an `Entry` per parameter what it is called there and how it is laid
out; `collect` and `publish` read such a table in either direction.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from nfnet_jax.errors import UserError
from nfnet_jax.models.network import Network

Path = tuple
"""Keys of a parameter, such as ("stages_0", "blocks", "branch", "conv0", "kernel", 2):
one slice of a stack ends in its layer."""
Shapes = dict[Path, tuple[int, ...]]


class Entry(NamedTuple):
    """The published form of an array of `own_shape`: transposed, then reshaped."""

    name: Hashable
    own_shape: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def publish(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array).transpose(self.axes).reshape(self.shape)

    def read(self, array: np.ndarray) -> np.ndarray:
        transposed = tuple(self.own_shape[axis] for axis in self.axes)
        return array.reshape(transposed).transpose(np.argsort(self.axes))


def collect(published: Mapping[Any, np.ndarray], table: dict[Path, Entry]) -> dict:
    """Flax parameters, stacked as scans need, from published ones.

    Raises:
      UserError: entries that are unknown, missing or of another shape, by name.
    """
    names = {entry.name for entry in table.values()}
    _refuse("unknown", map(_text, published.keys() - names))
    _refuse("missing", map(_text, names - published.keys()))
    _refuse(
        "misshapen",
        (
            f"{_text(entry.name)} {np.shape(published[entry.name])}, expected "
            f"{entry.shape}"
            for entry in table.values()
            if np.shape(published[entry.name]) != entry.shape
        ),
    )
    layers = {
        path: entry.read(np.asarray(published[entry.name]))
        for path, entry in table.items()
    }
    return traverse_util.unflatten_dict(_stack(layers))


def publish(params: Mapping, table: dict[Path, Entry]) -> dict[Any, np.ndarray]:
    """The inverse of `collect`."""
    layers = _unstack(traverse_util.flatten_dict(params))
    return {entry.name: entry.publish(layers[path]) for path, entry in table.items()}


def layer_shapes(model: Network) -> Shapes:
    """Shape of every parameter, those of scanned blocks layer by layer."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    shapes: Shapes = {}
    for path, leaf in traverse_util.flatten_dict(params).items():
        if "blocks" in path:
            shapes |= {(*path, i): leaf.shape[1:] for i in range(leaf.shape[0])}
        else:
            shapes[path] = leaf.shape
    return shapes


class Site(NamedTuple):
    """Where a parameter lies: `place` within the block `index` of stage `stage`.

    Outside of the stages both are None and `place` is the whole path.
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
    if path[1] == "blocks":
        return Site(stage, 1 + path[-1], path[2:-1])
    return Site(stage, 1 + int(path[1].removeprefix("blocks_")), path[2:])


def _unstack(params: dict[Path, np.ndarray]) -> dict[Path, np.ndarray]:
    layers: dict[Path, np.ndarray] = {}
    for path, array in params.items():
        if "blocks" in path:
            layers |= {(*path, i): layer for i, layer in enumerate(np.asarray(array))}
        else:
            layers[path] = array
    return layers


def _stack(found: dict[Path, np.ndarray]) -> dict[Path, np.ndarray]:
    stacked = {path: array for path, array in found.items() if "blocks" not in path}
    layers: dict[Path, dict[int, np.ndarray]] = {}
    for (*path, layer), array in found.items():
        if "blocks" in path:
            layers.setdefault(tuple(path), {})[layer] = array
    for place, arrays in layers.items():
        stacked[place] = np.stack([arrays[i] for i in range(len(arrays))])
    return stacked


def _text(name: Hashable) -> str:
    return ":".join(name) if isinstance(name, tuple) else str(name)


def _refuse(problem: str, names: Iterable[str]) -> None:
    names = sorted(names)
    if names:
        others = f" and {len(names) - 5} more" if names[5:] else ""
        raise UserError(
            f"{len(names)} {problem} parameters for this model: "
            f"{'; '.join(names[:5])}{others}"
        )
