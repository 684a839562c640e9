"""Cache of decoded images, each test its own."""

import pytest

from nfnet_jax.data import decoding


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """Arguments of `decode_image`, of all images decoded so far."""
    calls = []
    decode = decoding.decode_image

    def count(*arguments):
        calls.append(arguments)
        return decode(*arguments)

    monkeypatch.setattr(decoding, "decode_image", count)
    return calls
