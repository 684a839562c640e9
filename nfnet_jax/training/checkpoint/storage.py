"""Trees of arrays in directories, by Orbax.

A module of its own, because Orbax takes long to import and a new run starts without it.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp


class Storage:
    """Writes one tree at a time, while the program goes on; `close` waits for it."""

    def __init__(self):
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(_only_raised())
        self._orbax = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

    def save(self, directory: str, tree: Any) -> None:
        """Starts to write; raises what went wrong so far, `wait` the rest."""
        self._orbax.save(directory, args=ocp.args.StandardSave(tree), force=True)

    def wait(self) -> None:
        self._orbax.wait_until_finished()

    def restore(self, directory: str, like: Any) -> Any:
        """The tree, with the shapes and on the devices of `like`."""
        target: Any = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._orbax.restore(directory, args=ocp.args.StandardRestore(target))

    def close(self) -> None:
        self._orbax.close()
        self._quiet.close()


def restore_some(directory: str, shapes: dict[str, Any]) -> dict[str, Any]:
    """Some entries of a tree, of these shapes, on the first device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        shapes,
    )
    args = ocp.args.PyTreeRestore(
        target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        return orbax.restore(directory, args=args)


def difference(directory: str, like: Any, whole: bool) -> str:
    """The first array of `like` that `directory` has not or has in another shape, or,
    of a `whole` tree, has besides; empty where there is none."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        found: Any = orbax.metadata(directory).item_metadata
    stored, own = _shapes(found.tree), _shapes(like)
    for name, shape in own.items():
        if name not in stored:
            return f"{name} is missing there"
        if stored[name] != shape:
            return f"{name} has shape {stored[name]} there, {shape} here"
    more = [name for name in stored if name not in own]
    return f"{more[0]} is there only" if whole and more else ""


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


@contextlib.contextmanager
def _only_raised() -> Iterator[None]:
    """Leaves a failed write to the exception that Orbax raises for it.

    Its log tells the same with a traceback; and writes that fail after the first one
    report to an event loop that has ended with it, once for each array.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook

    def tell(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.addFilter(_is_not_raised)
    sys.unraisablehook = tell
    try:
        yield
    finally:
        sys.unraisablehook = hook
        logger.removeFilter(_is_not_raised)


def _is_not_raised(record: logging.LogRecord) -> bool:
    """Whether a record tells more than an exception that Orbax raises later."""
    return not (record.exc_info and "orbax" in record.pathname)
