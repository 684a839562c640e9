"""Downloads from a server that behaves and from servers that do not."""

import hashlib

import numpy as np
import pytest

from nfnet_jax.utils.download import RemoteFile, fetch
from nfnet_jax.utils.errors import UserError

CONTENT = np.random.RandomState(1).bytes(300_000)


def test_a_file_is_downloaded_once_and_always_verified(serve, tmp_path):
    server, path = serve(CONTENT), tmp_path / "file.bin"
    for _ in range(2):
        assert fetch(server.file(), tmp_path) == path
        assert path.read_bytes() == CONTENT
        assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="wrong checksum"):
        fetch(server.file(), tmp_path)
    assert server.asked == [None]


def test_dropped_connections_are_resumed(serve, tmp_path):
    server = serve(CONTENT, cuts=[100_000, 50_000])
    assert fetch(server.file(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_download_of_an_earlier_run_is_resumed(serve, tmp_path):
    server = serve(CONTENT)
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1234])
    assert fetch(server.file(), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1234-"]


def test_server_without_ranges_starts_again(serve, tmp_path):
    server = serve(CONTENT, ranges=False)
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1234)
    assert fetch(server.file(), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1234-"]


def test_server_that_never_finishes_is_given_up(serve, tmp_path):
    server = serve(CONTENT, ranges=False, cuts=[1000] * 9)
    with pytest.raises(UserError, match="could not be downloaded.*closed") as error:
        fetch(server.file(), tmp_path)
    assert "\n" not in str(error.value)
    assert len(server.asked) == 2


@pytest.mark.parametrize("content", [CONTENT, b""])
def test_file_of_the_server_that_is_too_short_is_dropped(content, serve, tmp_path):
    remote = serve(content).file(size=len(content) + 10)
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch(remote, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_checksum_of_a_download(serve, tmp_path):
    remote = serve(CONTENT).file(sha256="0" * 64)
    found = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(UserError, match=f"sha256 {'0' * 64}.*found {found}") as error:
        fetch(remote, tmp_path)
    assert "kept aside" in str(error.value) and "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin.wrong"]


def test_size_and_checksum_need_not_be_known(serve, tmp_path):
    server = serve(CONTENT, cuts=[100_000])
    remote = server.file(sha256=None, size=None)
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_part_that_is_complete_is_downloaded_again_where_its_size_is_unknown(
    serve, tmp_path
):
    server = serve(CONTENT)
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    remote = server.file(sha256=None, size=None)
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-", None]


def test_unreachable_url_is_named_with_the_place_for_the_file(tmp_path):
    remote = RemoteFile("http://127.0.0.1:9/w.npz", filename="mine.npz")
    with pytest.raises(UserError) as error:
        fetch(remote, tmp_path, ", or wait")
    assert remote.url in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).endswith(
        f"place the file at {tmp_path / 'mine.npz'}, or wait"
    )
