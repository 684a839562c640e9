"""What every entry point says about itself, and that it says it at once."""

import re
import subprocess
import sys

import pytest
from help_cases import COMMANDS, WITH_CONFIG

from nfnet_jax import cli
from nfnet_jax.cli import command
from nfnet_jax.config import KEYS

HEAVY = {"jax", "flax", "optax", "sklearn", "optuna", "tensorflow_datasets"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_complete_and_imports_nothing_heavy(name):
    script = f"""
import runpy, sys
try:
    runpy.run_module("nfnet_jax.{name}", run_name="__main__", alter_sys=True)
finally:
    print({HEAVY} & sys.modules.keys(), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "set()\n"
    usage, about = done.stdout.split("\n\n")[:2]
    assert usage.startswith(f"usage: python -m nfnet_jax.{name}")
    assert about.endswith(".")
    assert re.search(rf"^    python -m nfnet_jax\.{name}", done.stdout, re.MULTILINE)
    assert not re.search("absl|flagfile|undefok", done.stdout)
    listed = set(re.findall(r"^  ([\w.]+)=", done.stdout, re.MULTILINE))
    assert listed == (KEYS.keys() if name in WITH_CONFIG else set())
    assert max(map(len, done.stdout.splitlines())) <= 100


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
