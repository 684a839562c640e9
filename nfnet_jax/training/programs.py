"""Functions kept as programs, so that a process need not trace what another has.

XLA's cache of compiled code is asked with a program, and Python takes seconds to trace
and lower a train step to one. Kept here is that program, as `jax.export` writes it, in
a folder that is named by all that tracing depends on.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax import export
from ml_collections import ConfigDict

from nfnet_jax.config import to_json
from nfnet_jax.data.dataset import Dataset
from nfnet_jax.training.compiler import compiler_options
from nfnet_jax.training.data_spec import DataFacts
from nfnet_jax.training.workdir import versions
from nfnet_jax.utils.files import write_atomically
from nfnet_jax.utils.strict_json import dumps, loads

Step = Callable[[Any, Any], tuple[Any, Any]]
"""step(state, fed) -> (state, metrics), as `make_train_step` makes it."""

INIT, SMALL, FULL = "init", "small", "full"
"""Names of the initialization, and of the steps on images of `train.small_size` and of
the data's size."""
_DIGEST_BYTES = hashlib.sha256().digest_size


def expect_programs(store: Path, config: ConfigDict) -> "Programs":
    """The programs in `store` that a run of `config` took last, which begin to be
    loaded while its data is still unknown; see `Programs.of`."""
    folder = store / run_identity(config)
    last = folder / "none"
    # Somebody may be emptying the folder.
    with contextlib.suppress(OSError):
        last = max(folder.glob("*/"), key=lambda f: f.stat().st_mtime, default=last)
    return _programs(last, config)


def _programs(folder: Path, config: ConfigDict) -> "Programs":
    # Where there are several devices, or others than CPUs, it was not tried.
    single = jax.device_count() == 1 and jax.default_backend() == "cpu"
    if not single or config.parallel.mode != "jit":
        return Programs()
    return Programs(folder, compiler_options(config))


def run_identity(config: ConfigDict) -> str:
    """A name for all but the data that the programs of a run are traced from.

    That is the config, the source of this package, the versions of those that it uses,
    and JAX's settings in the environment.
    """
    settings = sorted(pair for pair in os.environ.items() if pair[0].startswith("JAX_"))
    return _digest(to_json(config), versions(), settings, source_digest())


def data_identity(dataset: Dataset, facts: DataFacts) -> str:
    """A name for all of the data that the programs of a run are traced from."""
    split = [type(dataset.train).__name__, len(dataset.train)]
    return _digest(split, dataclasses.asdict(facts))


def _digest(*told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class Programs:
    """Functions by name, whose programs lie in `folder`; None: they are not kept.

    Those that are there begin to be loaded, in threads that the end of the process
    waits for: XLA aborts where its globals go away under it.

    `options`: XLA's, for all of them.
    """

    def __init__(
        self, folder: Path | None = None, options: dict[str, str] | None = None
    ):
        self._folder, self._options = folder, options
        self._loading: dict[str, Future] = {}
        programs = {name: self._read(name) for name in (INIT, SMALL, FULL)}
        pool = ThreadPoolExecutor()
        for name, program in programs.items():
            if program:
                # Lowered here: Python would do it in turns with the caller.
                lowered = self._lower(name, program)
                self._loading[name] = pool.submit(lowered.compile)
        pool.shutdown(wait=False)

    def of(self, config: ConfigDict, dataset: Dataset, facts: DataFacts) -> "Programs":
        """Those of a run of `config` on `dataset`, mostly the ones expected."""
        if not self._folder:
            return self
        store = self._folder.parents[1]
        folder = store / run_identity(config) / data_identity(dataset, facts)
        return self if folder == self._folder else _programs(folder, config)

    def keep(self, name: str, function: Callable) -> Callable:
        """`function`, by the program that is kept under this name, or else by one that
        its first call leaves there.

        It takes and returns arrays in tuples, lists and dicts. Later calls have the
        shapes of the first.
        """
        if not self._folder:
            return function
        compiled = None

        def run(*arguments):
            nonlocal compiled
            if name in self._loading:
                compiled = self._loading.pop(name).result()
            if compiled is None:
                program = _trace(function, *arguments)
                self._write(name, program)
                compiled = self._lower(name, program).compile()
            return compiled(*arguments)

        return run

    def keep_step(self, name: str, step: Step) -> Step:
        """As `keep`, of a step, whose state may be of any class; it is donated."""
        if not self._folder:
            return step
        state_tree = fed_tree = None

        def of_leaves(state, fed):
            state = jax.tree.unflatten(state_tree, state)
            state, metrics = step(state, jax.tree.unflatten(fed_tree, fed))
            return jax.tree.leaves(state), metrics

        kept = self.keep(name, of_leaves)

        def run(state, fed):
            nonlocal state_tree, fed_tree
            state, state_tree = jax.tree.flatten(state)
            fed, fed_tree = jax.tree.flatten(fed)
            state, metrics = kept(state, fed)
            return jax.tree.unflatten(state_tree, state), metrics

        return run

    def recall(self, name: str, find: Callable[[], Any]) -> Any:
        """What `find` returned when it was last asked, for what takes tracing to know.

        JSON must be able to hold it.
        """
        if not self._folder:
            return find()
        if content := self._read(name):
            return loads(content)
        found = find()
        self._write(name, dumps(found).encode())
        return found

    def _lower(self, name: str, program: bytes) -> jax.stages.Lowered:
        exported = export.deserialize(bytearray(program))
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in exported.in_avals]
        arguments, _ = jax.tree.unflatten(exported.in_tree, shapes)
        function = jax.jit(
            exported.call,
            donate_argnums=() if name == INIT else 0,
            compiler_options=self._options,
        )
        return function.lower(*arguments)

    def _read(self, name: str) -> bytes | None:
        """What is kept under `name`, None where it is absent or damaged."""
        if not self._folder:
            return None
        try:
            content = self._path(name).read_bytes()
        except OSError:
            return None
        digest, kept = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return kept if hashlib.sha256(kept).digest() == digest else None

    def _write(self, name: str, kept: bytes) -> None:
        content = hashlib.sha256(kept).digest() + kept
        # JAX warns of a folder that cannot be written, for it is that of its cache.
        with contextlib.suppress(OSError):
            write_atomically(self._path(name), lambda file: file.write(content))

    def _path(self, name: str) -> Path:
        assert self._folder
        return self._folder / name


def _trace(function: Callable, *arguments: Any) -> bytes:
    return bytes(export.export(jax.jit(function))(*arguments).serialize())


def source_digest() -> str:
    """Of every file of this package."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
