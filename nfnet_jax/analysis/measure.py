"""Signal propagation: the moments of the signal before and after every block.

The quantities are those of Brock, De, Smith, "Characterizing signal propagation to
close the performance gap in unnormalized ResNets", arXiv 2101.08692, section 3. Modules
are watched from outside (`flax.linen.intercept_methods`): the network stays as it is.
"""

import contextlib
import dataclasses
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from nfnet_jax.layers.affine import Affine, as_affine, as_images
from nfnet_jax.layers.ws_conv import WSConv
from nfnet_jax.models.blocks import ImageNetStem
from nfnet_jax.ops.windows import pair
from nfnet_jax.utils.errors import UserError

BLOCKS = r"^stages_\d+/(transition|blocks(_\d+)?)$"
BRANCHES = r"/branch$"
SHORTCUTS = r"/shortcut$"
POOLS = r"/shortcut/averaged$"
"""Paths of modules in the residual networks of this project."""


class Moments(NamedTuple):
    """Averages over channels of each channel's squared mean, and of its variance."""

    sq_mean: jax.Array | float
    var: jax.Array | float


class LayerSignal(NamedTuple):
    """A convolution: its path, and the moments of its input and output.

    `shared_mean`: squared mean of all channels of the input together, None: not known.
    """

    name: str
    input: Moments
    output: Moments
    shared_mean: jax.Array | float | None = None


class Pooling(NamedTuple):
    """Shares of the variance that 2x2 averages before a projection leave.

    `predicted` follows from the spatial correlation of their input (`pooled_share`).
    """

    predicted: jax.Array | float
    measured: jax.Array | float


@dataclasses.dataclass(frozen=True)
class BlockSignal:
    """A residual block: its path, and the moments of the signal before and after it.

    `branch_var`: average variance of the branch before skip gain and α, nan where
    nothing matches `branches`. `convs`: of the branch, in the order of their calls.
    `values`: of a channel, N · H · W after the block, 0: not known.
    """

    name: str
    input: Moments
    output: Moments
    branch_var: float
    convs: tuple[LayerSignal, ...]
    pooling: Pooling | None
    values: int = 0


@dataclasses.dataclass(frozen=True)
class Signal:
    """Result of `measure`: `blocks`, and all convolutions in the order of calls.

    As arrays: `avg_sq_mean`, `avg_var` [blocks + 1] of the signal before the first
    block and after each; `res_avg_var` [blocks] of the branches.
    """

    blocks: tuple[BlockSignal, ...]
    layers: tuple[LayerSignal, ...]

    @property
    def avg_sq_mean(self) -> np.ndarray:
        return np.asarray([moments.sq_mean for moments in self._moments()])

    @property
    def avg_var(self) -> np.ndarray:
        return np.asarray([moments.var for moments in self._moments()])

    @property
    def res_avg_var(self) -> np.ndarray:
        return np.asarray([block.branch_var for block in self.blocks])

    def _moments(self) -> list[Moments]:
        return [self.blocks[0].input, *(block.output for block in self.blocks)]


class _Call(NamedTuple):
    """Record of a call; on a leading axis where the module is scanned."""

    input: Moments
    output: Moments
    pooled_share: jax.Array
    shared_mean: jax.Array
    values: jax.Array


class _Patterns(NamedTuple):
    blocks: re.Pattern
    branches: re.Pattern
    shortcuts: re.Pattern
    pools: re.Pattern


def measure(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    *,
    blocks: str = BLOCKS,
    branches: str = BRANCHES,
    shortcuts: str = SHORTCUTS,
    pools: str = POOLS,
    borders: bool = True,
    **arguments: Any,
) -> Signal:
    """Measures every block and convolution of `model` on images [N, H, W, C].

    `blocks`, `branches`, `shortcuts` and `pools` (2x2 averages in a shortcut) are
    regular expressions searched in module paths such as "stages_0/blocks/branch/conv0".
    A convolution is a module with a 4-D parameter. Blocks under `nn.scan` are told
    apart if it maps the collection "signal" (`variable_axes={"params": 0, "signal":
    0}`). `arguments` go to the model, for example `train=False`; collections other than
    "params" may be updated, which has no effect. With `borders=False` every `WSConv`
    reads pixels of the opposite edge instead of zeros, so that no variance is lost at
    borders.

    Raises:
      UserError: no module matches `blocks`.
    """
    patterns = _Patterns(*map(re.compile, (blocks, branches, shortcuts, pools)))
    order: dict[str, bool] = {}
    # `sow` would append to the values that `init` left there.
    variables = {name: tree for name, tree in variables.items() if name != "signal"}
    mutable = ["signal", *(name for name in variables if name != "params")]

    @jax.jit
    def run(variables, images):
        with (
            nn.intercept_methods(_recorder(order, patterns)),
            contextlib.nullcontext() if borders else nn.intercept_methods(_wrapped),
        ):
            _, updated = model.apply(
                variables,
                images,
                mutable=mutable,
                rngs={"dropout": jax.random.key(0)},
                **arguments,
            )
        flat = traverse_util.flatten_dict(updated.get("signal", {}), sep="/")
        suffix = "/calls"
        return {k.removesuffix(suffix): v for k, v in flat.items() if suffix in k}

    found = jax.tree.map(np.asarray, run(variables, images))
    _check_blocks(order, found, patterns)
    calls = {path: found[path] for path in order if path in found}
    return _assemble(_unstacked(calls, patterns), order, patterns)


def open_branches(params):
    """Copies `params` with every skip gain 1, so that all branches contribute."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 0 + 1 if path[-1].key == "skip_gain" else leaf, params
    )


def _recorder(order: dict[str, bool], patterns: _Patterns) -> Callable:
    """An interceptor that sows a `_Call` after every call of a watched module.

    It adds {path: the module is a convolution} to `order`.
    """

    def record(call, args, kwargs, context):
        module, path = context.module, "/".join(context.module.path)
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if patterns.branches.search(path) and len(args) == 2:
            # The scale of a branch is left to the end, so that it is measured without.
            unscaled, scale = args[:1], args[1]
            return as_affine(record(call, unscaled, kwargs, context)).times(scale)
        returned = call(*args, **kwargs)
        y = as_images(returned)
        if not args or not _are_maps(args[0], y):
            return returned
        convolution = _is_convolution(module)
        if convolution or any(pattern.search(path) for pattern in patterns):
            x = args[0]
            pools = patterns.pools.search(path)
            share = pooled_share(x) if pools else jnp.full((), jnp.nan)
            order[path] = convolution
            shared = jnp.square(x.astype(jnp.float32).mean())
            values = jnp.asarray(y.size // y.shape[-1])
            found = _Call(moments(x), moments(y), share, shared, values)
            module.sow("signal", "calls", found)
        return returned

    return record


def _wrapped(call, args, kwargs, context):
    """Calls a module with pixels of the opposite edge in the place of zero padding."""
    beyond, stride = _reach(context.module)
    if context.method_name != "__call__" or not beyond:
        return call(*args, **kwargs)
    edge = beyond * stride
    sides = ((0, 0), (edge, edge), (edge, edge), (0, 0))
    y = call(jnp.pad(args[0], sides, mode="wrap"), *args[1:], **kwargs)
    inner = slice(None), slice(beyond, -beyond), slice(beyond, -beyond)
    return y._replace(x=y.x[inner]) if isinstance(y, Affine) else y[inner]


def _reach(module: nn.Module) -> tuple[int, int]:
    """Pixels of the output that see beyond an edge of the input, and the stride."""
    if isinstance(module, ImageNetStem):
        return 2, 4
    if isinstance(module, WSConv) and not module.pool:
        stride, _ = pair(module.strides, "strides")
        size = max(pair(module.kernel_size, "kernel_size"))
        return -(-(size - 1) // stride), stride
    return 0, 1


def _are_maps(*values: Any) -> bool:
    return all(getattr(value, "ndim", 0) == 4 for value in values)


def _is_convolution(module: nn.Module) -> bool:
    own = module.variables.get("params", {}).values()
    return any(getattr(leaf, "ndim", 0) == 4 for leaf in own)


def _check_blocks(order: dict, found: dict, patterns: _Patterns) -> None:
    blocks = [path for path in order if patterns.blocks.search(path)]
    if not blocks:
        raise UserError(
            f"no module matches blocks={patterns.blocks.pattern!r}, expected a regular "
            f"expression of module paths, of which {', '.join(order) or 'none'} have "
            "convolutions"
        )
    for path in blocks:
        if path not in found:
            raise UserError(
                f"block {path} runs under a transformation that drops the collection "
                "'signal', expected variable_axes={'signal': 0} of nn.scan"
            )


def _unstacked(
    calls: dict[str, tuple[_Call, ...]], patterns: _Patterns
) -> dict[str, tuple[_Call, ...]]:
    """`calls` with an entry "block[i]/..." for every layer of a stack, in order."""
    blocks = [path for path in calls if patterns.blocks.search(path)]
    flat: dict[str, tuple[_Call, ...]] = {}
    for path in calls:
        block = next((b for b in blocks if _is_below(path, b)), None)
        if block is None or np.ndim(calls[block][0].input.var) == 0:
            flat[path] = calls[path]
        elif block == path:
            members = [member for member in calls if _is_below(member, block)]
            for i in range(np.shape(calls[block][0].input.var)[0]):
                for member in members:
                    name = f"{block}[{i}]{member.removeprefix(block)}"
                    flat[name] = jax.tree.map(operator.itemgetter(i), calls[member])
    return flat


def _assemble(calls: dict, order: dict[str, bool], patterns: _Patterns) -> Signal:
    raw = {name: re.sub(r"\[\d+\]", "", name) for name in calls}
    layers = [
        LayerSignal(name, call.input, call.output, call.shared_mean)
        for name, (call, *_) in calls.items()
        if order[raw[name]]
    ]
    blocks = []
    for name, (call, *_) in calls.items():
        if not patterns.blocks.search(raw[name]):
            continue
        inside = [member for member in calls if _is_below(member, name)]
        branches = [m for m in inside if patterns.branches.search(raw[m])]
        convs = {m for m in inside if not patterns.shortcuts.search(raw[m])}
        pools = [calls[m][0] for m in inside if patterns.pools.search(raw[m])]
        shares = [Pooling(p.pooled_share, p.output.var / p.input.var) for p in pools]
        blocks.append(
            BlockSignal(
                name,
                call.input,
                call.output,
                calls[branches[-1]][-1].output.var if branches else np.nan,
                tuple(layer for layer in layers if layer.name in convs),
                shares[0] if shares else None,
                int(call.values),
            )
        )
    return Signal(tuple(blocks), tuple(layers))


def _is_below(path: str, block: str) -> bool:
    return path == block or path.startswith(f"{block}/")


def moments(x: jax.Array) -> Moments:
    """Moments of x [N, H, W, C]; a channel's mean and variance are over N, H and W."""
    x = x.astype(jnp.float32)
    return Moments(jnp.square(x.mean((0, 1, 2))).mean(), x.var((0, 1, 2)).mean())


def pooled_share(x: jax.Array) -> jax.Array:
    """The share of its variance that x [N, H, W, C] should keep in 2x2 averages.

    Var(mean of 2x2) = Var(x) · mean of the 4x4 matrix of the pixels' correlations:
    (1 + ρ(0, 1) + ρ(1, 0) + (ρ(1, 1) + ρ(1, -1)) / 2) / 4, a quarter for white noise,
    1 for a signal that is constant in space. ρ is measured over all neighbours, not
    over the windows that pooling takes.
    """
    x = x.astype(jnp.float32)
    x = x - x.mean((0, 1, 2), keepdims=True)
    variance = jnp.square(x).mean()
    down, right = (x[:, 1:], x[:, :-1]), (x[:, :, 1:], x[:, :, :-1])
    diagonal = x[:, 1:, 1:], x[:, :-1, :-1]
    other = x[:, 1:, :-1], x[:, :-1, 1:]
    rho = [(a * b).mean() / variance for a, b in (down, right, diagonal, other)]
    return (1 + rho[0] + rho[1] + (rho[2] + rho[3]) / 2) / 4
