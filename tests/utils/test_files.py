"""Paths: what is on another machine is refused in a line; files are written whole."""

import os
import re

import pytest
from tiny_run import tiny_config

from nfnet_jax import cli
from nfnet_jax.__main__ import COMMANDS, dispatch
from nfnet_jax.config import check_config
from nfnet_jax.data.load import load_dataset
from nfnet_jax.inference.export import check_target
from nfnet_jax.training.loop import train
from nfnet_jax.training.workdir import read_config
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.files import (
    cache_directory,
    replacing,
    scheme_of,
    write_atomically,
)
from nfnet_jax.weights.load import load_pretrained

BUCKET = "gs://bucket/runs"


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """Nothing is written into the directory that a test runs in."""
    file = tmp_path / "x.py"
    file.write_text("from tiny_run import tiny_config as get_config\n")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(cli, "prepare_jax", lambda: None)
    yield file
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("path", "scheme"),
    [
        ("gs://b", "gs"),
        ("GS://b", "gs"),
        ("gs:/b", "gs"),
        ("made-up+of.it://x", "made-up+of.it"),
        ("file:///data", "file"),
        ("/data/gs://b", None),
        ("runs/a:b", None),
        ("./gs:/b", None),
        ("odd:/b", None),
        ("", None),
    ],
)
def test_schemes(path, scheme):
    assert scheme_of(path) == scheme


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "config"])
def test_every_flag_of_every_command_refuses_a_bucket(command, empty, capsys):
    """Flags that come later are held to it as well."""
    with pytest.raises(SystemExit):
        dispatch(["nfnet", command, "--help"])
    told = capsys.readouterr().out
    flags = set(re.findall(r"^  --(\w+)=VALUE", told, re.MULTILINE)) - {*cli.URLS}
    assert flags or command == "models"
    own = [f"--config={empty}"] if "--config=FILE" in told else []
    for flag in flags:
        with pytest.raises(UserError, match=rf"--{flag} is '{BUCKET}'.*this machine"):
            dispatch(["nfnet", command, *own, f"--{flag}={BUCKET}"])


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("predict", ["--workdir=x", "s3://bucket/photo.jpg"]),
        ("report", ["s3:/bucket/run"]),
        ("train", ["--config=s3://bucket/config.py"]),
        ("train", ["--config=CONFIG", "--config.data.dir=s3://b"]),
        ("train", ["--config=CONFIG", "--config.data.name=folder:s3://b"]),
        ("train", ["--config=CONFIG", "--config.model.weights=s3://b/w.npz"]),
        ("sweep", ["--config=CONFIG", "--grid=config.data.dir=s3://b,s3://c"]),
        ("sweep", ["--config=CONFIG", "--grid=config.seed=1", "--storage=s3:/b"]),
        ("sweep", ["--config=CONFIG", "--grid=config.seed=1", "--storage=s3://b"]),
    ],
    ids=str,
)
def test_so_do_arguments_and_keys(command, arguments, empty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [argument.replace("CONFIG", str(empty)) for argument in arguments]
    with pytest.raises(UserError) as error:
        dispatch(["nfnet", command, *given])
    assert "s3:/" in str(error.value) and "\n" not in str(error.value)
    assert not [entry for entry in os.listdir() if "s3" in entry]


def test_so_does_the_library():
    with pytest.raises(UserError, match=r"did you mean '/data/runs'\?"):
        read_config("file:///data/runs")
    calls = (
        lambda: check_config(tiny_config(**{"data.dir": BUCKET})),
        lambda: train(tiny_config(), BUCKET),
        lambda: read_config(BUCKET),
        lambda: load_dataset(f"folder:{BUCKET}", image_size=8),
        lambda: load_dataset("tfds:mnist", data_dir=BUCKET),
        lambda: load_pretrained("nfnet_f0", f"{BUCKET}/f0.npz"),
        lambda: check_target(f"{BUCKET}/f0.jaxexport", "jax"),
    )
    for call in calls:
        with pytest.raises(UserError, match="this machine"):
            call()


@pytest.mark.parametrize("name", ["NFNET_JAX_CACHE", "XDG_CACHE_HOME", "TFDS_DATA_DIR"])
def test_so_does_the_environment(name, monkeypatch):
    monkeypatch.delenv("NFNET_JAX_CACHE", raising=False)
    monkeypatch.setenv(name, BUCKET)
    with pytest.raises(UserError, match=rf"{name} is '{BUCKET}'.*gs:// is not"):
        cache_directory()
        load_dataset("tfds:mnist")


def test_cache_directory_defaults(monkeypatch, tmp_path):
    monkeypatch.delenv("NFNET_JAX_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "home" / ".cache" / "nfnet_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "nfnet_jax"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as part:
        part.write_text("first")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("second")
        raise ZeroDivisionError
    write_atomically(tmp_path / "deeper/file", lambda file: file.write(b"third"))
    assert path.read_text() == "first"
    assert (tmp_path / "deeper/file").read_bytes() == b"third"
    assert sorted(p.name for p in tmp_path.rglob("*file*")) == ["file", "file"]
