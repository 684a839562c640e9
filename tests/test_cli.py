"""Command lines: flags of every kind, the help of every command, the dispatcher."""

import json
import re
import subprocess
import sys

import pytest

from nfnet_jax import cli
from nfnet_jax.__main__ import COMMANDS, dispatch
from nfnet_jax.cli import command
from nfnet_jax.config import KEYS
from nfnet_jax.config.kinds import Int, Several, Switch
from nfnet_jax.utils.errors import UserError

WITH_CONFIG = {"analyze", "data", "plan", "sweep", "train"}
HEAVY = {"jax", "flax", "optax", "sklearn", "optuna", "tensorflow_datasets"}
SCRIPT = f"""
import contextlib, importlib, io, json, sys
from nfnet_jax.__main__ import COMMANDS, dispatch
printed = {{}}
for name in ["", *COMMANDS]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.suppress(SystemExit):
            dispatch(["nfnet", *filter(None, [name]), "--help"])
    printed[name] = out.getvalue()
print(json.dumps([printed, list({HEAVY} & sys.modules.keys())]))
"""


@pytest.fixture(scope="module")
def helps():
    """Texts of `nfnet --help` and `nfnet NAME --help`, and heavy modules imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_help_imports_nothing_heavy(helps):
    assert helps[1] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_complete(name, helps):
    text = helps[0][name]
    usage, about = text.split("\n\n")[:2]
    assert usage.startswith(f"usage: nfnet {name}")
    assert about.endswith(".")
    assert re.search(rf"^    python -m nfnet_jax\.{name}", text, re.MULTILINE)
    listed = set(re.findall(r"^  ([\w.]+)=", text, re.MULTILINE))
    assert listed == (KEYS.keys() if name in WITH_CONFIG else set())
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(rf"^  {name} +[A-Z].*\.$", helps[0][""], re.MULTILINE)


def test_a_command_runs_by_its_name_and_as_a_module():
    commands = (["nfnet_jax.config"], ["nfnet_jax", "config"])
    first, second = (
        subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, check=True
        ).stdout
        for command in commands
    )
    assert first == second and "optim.learning_rate=0.1" in first


def test_an_unknown_command_is_one_line_with_the_nearest():
    with pytest.raises(UserError, match="unknown command 'trian'.*mean 'train'"):
        dispatch(["nfnet", "trian"])


def test_flags_of_every_kind(capsys):
    def parsed(*words):
        return cli.parse(
            ["x", *words],
            "",
            arguments="NAMES",
            text="a text",
            count=Int(5, "a number", "[1, 9]"),
            fast=Switch(False, "a switch"),
            each=Several((), "texts"),
        )

    found = parsed(
        "a", "--text", "b=c", "--each=1", "-count=7", "--each", "2", "--fast"
    )
    assert vars(found) == {
        "arguments": ["a"],
        "text": "b=c",
        "count": 7,
        "fast": True,
        "each": ["1", "2"],
        "help": False,
    }
    assert not parsed("--fast", "--nofast").fast and not parsed("--fast=false").fast
    assert parsed("--", "--text").arguments == ["--text"]
    assert parsed().count == 5 and parsed().text is None
    for words, message in (
        (["--count=0"], r"--count is '0', expected a whole number in \[1, 9\]"),
        (["--count=7.0"], "did you mean 7"),
        (["--count"], "--count has no value, expected a whole number"),
        (["--cuont=1"], "unknown flag --cuont, expected --text.*'--count'"),
        (["--fast=maybe"], "--fast is 'maybe', expected true or false"),
        (["--text="], "--text is empty"),
    ):
        with pytest.raises(UserError, match=message):
            parsed(*words)
    with pytest.raises(SystemExit):
        parsed("-h")
    told = capsys.readouterr().out
    assert (
        "--count=VALUE         a number (a whole number in [1, 9]; default: 5)" in told
    )


def test_train_names_its_flags_with_their_meaning(capsys):
    from nfnet_jax import train

    with pytest.raises(SystemExit) as exit_:
        train.main(["/anywhere/nfnet_jax/train.py", "-h"])
    assert exit_.value.code == 0
    told = capsys.readouterr().out
    assert "--config=FILE[:ARGUMENT]" in told
    assert re.search(r"--workdir=VALUE +directory of the run", told)
    assert told.count("python -m nfnet_jax.train --config configs/") == 2
    assert re.search(
        r"optim\.learning_rate=0\.1\n +peak learning rate, for a batch", told
    )


def test_keys_are_shown_as_the_file_and_the_flags_set_them(tmp_path, capsys):
    file = tmp_path / "own.py"
    file.write_text(
        "from nfnet_jax.config import base_config\n\n\ndef get_config():\n"
        "    config = base_config()\n    config.optim.momentum = 0.75\n"
        "    return config\n"
    )
    with pytest.raises(SystemExit):
        cli.parse(
            ["x.py", f"--config={file}", "--config.seed=5", "--help"],
            "Tests.",
            config="needed",
        )
    told = capsys.readouterr().out
    assert "\n  optim.momentum=0.75\n" in told and "\n  seed=5\n" in told


def test_every_key_is_listed_with_default_and_check(capsys):
    from nfnet_jax.config.__main__ import main

    main(["config"])
    told = capsys.readouterr().out
    assert re.findall(r"^  ([\w.]+)=", told, re.MULTILINE) == list(KEYS)
    assert "  model.num_classes=unset\n" in told
    words = " ".join(told.split())
    for key in KEYS.values():
        assert f"{' '.join(key.meaning.split())} ({key.expected})" in words


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/me/nfnet_jax/nfnet_jax/train.py", "python -m nfnet_jax.train"),
        ("/x/nfnet_jax/data/__main__.py", "python -m nfnet_jax.data"),
        ("experiments/claims/run.py", "run.py"),
    ],
)
def test_commands_are_named_as_they_are_started(path, name):
    assert command(path) == name
