"""Train steps kept as programs, so that a process need not trace what another has.

XLA's cache of compiled code is asked with a program, and Python takes seconds to trace
and lower a train step to one. Kept here is that program, as `jax.export` writes it, in
a file that is named by all that tracing depends on.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
from jax import export
from ml_collections import ConfigDict

from nfnet_jax.cache import write_atomically
from nfnet_jax.config import to_json
from nfnet_jax.data.dataset import Dataset
from nfnet_jax.training.facts import DataFacts
from nfnet_jax.training.step import compiler_options
from nfnet_jax.training.workdir import versions

Step = Callable[[Any, Any], tuple[Any, Any]]
"""step(state, fed) -> (state, metrics), as `make_train_step` makes it."""
_DIGEST_BYTES = hashlib.sha256().digest_size


SMALL, FULL = "small", "full"
"""Names of the steps on images of `train.small_size` and of the data's size."""


def run_programs(
    folder: Path | None, config: ConfigDict, dataset: Dataset, facts: DataFacts
) -> "Programs":
    """The programs of a run among those in `folder`, which begin to be loaded.

    None are kept without a folder, on several devices, elsewhere than on a CPU and
    under pmap: there it was not tried.
    """
    single = jax.device_count() == 1 and jax.default_backend() == "cpu"
    if not folder or not single or config.parallel.mode != "jit":
        return Programs(None)
    folder = folder / run_identity(config, dataset, facts)
    programs = Programs(folder, compiler_options(config))
    programs.load(SMALL, FULL)
    return programs


def run_identity(config: ConfigDict, dataset: Dataset, facts: DataFacts) -> str:
    """A name for all that the train steps of a run are traced from.

    That is the config, what a step knows of the data, the source of this package, the
    versions of those that it uses, the device, and JAX's settings in the environment.
    """
    told = [
        to_json(config),
        dataclasses.asdict(facts),
        [type(dataset.train).__name__, len(dataset.train)],
        versions(),
        sorted(pair for pair in os.environ.items() if pair[0].startswith("JAX_")),
        source_digest(),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class Programs:
    """Steps by name, whose programs lie in `folder`; None: they are not kept.

    `options`: XLA's, of every step.
    """

    def __init__(self, folder: Path | None, options: dict[str, str] | None = None):
        self._folder, self._options = folder, options
        self._loading: dict[str, Future] = {}

    def load(self, *names: str) -> None:
        """Begins to load these steps in the background, where they are kept."""
        for name in names:
            if program := self._read(name):
                # Lowered here: Python would do it in turns with the caller.
                self._loading[name] = _in_background(self._lower(program).compile)

    def keep(self, name: str, step: Step) -> Step:
        """`step`, by the program that `load` found under this name, or else by one that
        its first call leaves there.

        The state is donated. Later calls have the shapes of the first.
        """
        if not self._folder:
            return step
        compiled = None

        def run(state, fed):
            nonlocal compiled
            leaves, tree = jax.tree.flatten(state)
            fed, fed_tree = jax.tree.flatten(fed)
            if name in self._loading:
                compiled = self._loading.pop(name).result()
            if compiled is None:
                program = _trace(_of_leaves(step, tree, fed_tree), leaves, fed)
                self._write(name, program)
                compiled = self._lower(program).compile()
            leaves, metrics = compiled(leaves, fed)
            return jax.tree.unflatten(tree, leaves), metrics

        return run

    def _lower(self, program: bytes) -> jax.stages.Lowered:
        exported = export.deserialize(bytearray(program))
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in exported.in_avals]
        arguments, _ = jax.tree.unflatten(exported.in_tree, shapes)
        step = jax.jit(exported.call, donate_argnums=0, compiler_options=self._options)
        return step.lower(*arguments)

    def _read(self, name: str) -> bytes | None:
        """The program kept under `name`, None where it is absent or damaged."""
        if not self._folder:
            return None
        try:
            content = self._path(name).read_bytes()
        except OSError:
            return None
        digest, program = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return program if hashlib.sha256(program).digest() == digest else None

    def _write(self, name: str, program: bytes) -> None:
        content = hashlib.sha256(program).digest() + program
        # JAX warns of a folder that cannot be written, for it is that of its cache.
        with contextlib.suppress(OSError):
            write_atomically(self._path(name), lambda file: file.write(content))

    def _path(self, name: str) -> Path:
        assert self._folder
        return self._folder / f"{name}.jaxexport"


def _trace(step: Callable, *arguments: Any) -> bytes:
    return bytes(export.export(jax.jit(step))(*arguments).serialize())


def _of_leaves(step: Step, state_tree: Any, fed_tree: Any) -> Callable:
    """`step` of and to lists of arrays: an exported program knows no other classes."""

    def run(state, fed):
        state = jax.tree.unflatten(state_tree, state)
        state, metrics = step(state, jax.tree.unflatten(fed_tree, fed))
        return jax.tree.leaves(state), metrics

    return run


def _in_background(function: Callable[[], Any]) -> Future:
    """What `function` returns or raises, computed by a thread that nobody waits for
    when the process ends."""
    future: Future = Future()

    def run():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def source_digest() -> str:
    """Of every file of this package."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
