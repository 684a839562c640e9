import jax
import pytest

from nfnet_jax.utils import cache
from nfnet_jax.utils.cache import cache_directory


def test_cache_directory_defaults(monkeypatch, tmp_path):
    monkeypatch.delenv("NFNET_JAX_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "home" / ".cache" / "nfnet_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "nfnet_jax"


@pytest.mark.parametrize(("asked", "seconds"), [(None, 0.1), ("2.5", 2.5)])
def test_compilations_worth_keeping(asked, seconds, monkeypatch):
    name = "jax_persistent_cache_min_compile_time_secs"
    settings = {name: float(asked or 1)}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.delenv(name.upper(), raising=False)
    if asked:
        monkeypatch.setenv(name.upper(), asked)
    cache.enable_compilation_cache()
    assert settings[name] == seconds
