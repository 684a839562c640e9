"""Trees of arrays in directories, by Orbax.

A module of its own, because importing Orbax takes long and a new run starts without it.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp


class OtherTree(Exception):
    """Error of a directory with another tree; the message names what differs."""


@contextlib.contextmanager
def open_writer() -> Iterator[ocp.StandardCheckpointer]:
    """Orbax's asynchronous writer, which raises errors and prints none.

    Its log repeats the exception with a traceback; and writes that fail after the first
    one report to an event loop that has ended with it, once for each array.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook

    def is_not_raised(record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in record.pathname)

    def report(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.addFilter(is_not_raised)
    sys.unraisablehook = report
    try:
        with ocp.StandardCheckpointer() as writer:
            yield writer
    finally:
        sys.unraisablehook = hook
        logger.removeFilter(is_not_raised)


def restore(directory: str, like: Any, *, whole: bool) -> Any:
    """The tree in `directory` with the structure, shapes and dtypes of `like`.

    Leaves have the shardings of those of `like`, else lie on the first device. With
    `whole` false the directory may hold more than `like`.

    Raises:
      OtherTree: an array is missing, has another shape, or is not in `like`.
    """
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        # A stored tree of an older layout is to be adapted here, where its own
        # structure and that of `like` are known.
        stored: Any = orbax.metadata(directory).item_metadata
        if found := _difference(_shapes(stored.tree), _shapes(like), whole):
            raise OtherTree(found)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def placed(leaf: Any) -> jax.ShapeDtypeStruct:
            sharding = getattr(leaf, "sharding", None) or here
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        target = jax.tree.map(placed, like)
        args = ocp.args.PyTreeRestore(
            target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=not whole,
        )
        return orbax.restore(directory, args=args)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _difference(stored: dict[str, Any], own: dict[str, Any], whole: bool) -> str:
    """The first array that differs, in words; empty if there is none."""
    for name, shape in own.items():
        if name not in stored:
            return f"{name} is missing there"
        if stored[name] != shape:
            return f"{name} has shape {stored[name]} there, {shape} here"
    more = [name for name in stored if name not in own]
    return f"{more[0]} is there only" if whole and more else ""
