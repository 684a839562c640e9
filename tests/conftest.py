"""Settings of every test."""

import ctypes
import gc
import os
import sys

import file_server
import jax
import pytest

# Compiling takes longer than running. This leaves out LLVM's optimization of machine
# code; XLA's own passes are as ever. Processes that tests start inherit it.
QUICK = "--xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
# A float32 that meets a bfloat16, and a vector that meets an image, are told apart from
# what is meant.
STRICT = {"jax_numpy_dtype_promotion": "strict", "jax_numpy_rank_promotion": "raise"}
for name, value in STRICT.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = value


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Programs that several tests build are compiled once a session."""
    cache = str(tmp_path_factory.mktemp("xla"))
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="module", autouse=True)
def release_programs():
    """Gives memory back after each file; a worker would grow to 5 GB."""
    yield
    jax.clear_caches()
    gc.collect()
    # Commands let the process keep what it frees.
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(autouse=True)
def promotion(request):
    """Other libraries' code that promotes dtypes may, in tests that are marked so."""
    if request.node.get_closest_marker("promotes"):
        with jax.numpy_dtype_promotion("standard"):
            yield
    else:
        yield


@pytest.fixture
def serve(monkeypatch):
    """serve(content, **options) -> a running `file_server.Server`."""
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(content, **options):
        servers.append(file_server.Server(content, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
