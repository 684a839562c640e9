"""Bad input gets one line and exit code 2: no traceback, nothing half written."""

import importlib.util
import json
import pathlib
import socket
import subprocess
import sys

import pytest

from nfnet_jax import cli, evaluate, export, predict, train
from nfnet_jax.config import base_config, to_json
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.experiment import Experiment

MAINS = {
    "train": train.main,
    "evaluate": evaluate.main,
    "predict": predict.main,
    "export": export.main,
}

_BASE = """\
from nfnet_jax.config import base_config


def get_config():
    config = base_config()
    config.model.name = "nf_wrn_10_1"
    config.data.batch_size = 64
"""
FILES = {
    "configs/digits.py": f"{_BASE}    return config\n",
    "raises.py": "def get_config():\n    return 1 / 0\n",
    "raises_two_lines.py": "def get_config():\n    raise ValueError('one\\ntwo')\n",
    "exits.py": "raise SystemExit(3)\n",
    "without.py": "x = 1\n",
    "none.py": "def get_config():\n    pass\n",
    "foreign.py": "from ml_collections import ConfigDict\n\n\n"
    "def get_config():\n    return ConfigDict({'seed': 1})\n",
    "unknown.py": f"{_BASE}    config.optim.learning_rat = 1\n    return config\n",
    "unlocked.py": f"{_BASE}    config.unlock()\n    config.optim.lr = 1\n"
    "    return config\n",
    "wrong_type.py": f"{_BASE}    config.train.epochs = 'ten'\n    return config\n",
    "section.py": f"{_BASE}    config.optim.schedule = 'linear'\n    return config\n",
    "negative.py": f"{_BASE}    config.optim.momentum = -1.0\n    return config\n",
    "unset.py": f"{_BASE}    config.optim.momentum = None\n    return config\n",
    "weights.npz": b"PK\x03\x04 cut",
    "notes.txt": "not a config, not a directory\n",
    "runs/damaged/config.json": '{"seed": 1,',
    "runs/list/config.json": "[1]",
    "runs/binary/config.json": b"\xff\xfe\x00",
    "photo.png": b"\x89PNG\r\n",
}


def _run_config(**values) -> str:
    config = to_json(base_config())
    config["model"]["name"] = "nf_wrn_10_1"
    config["data"]["batch_size"] = 64
    return json.dumps(config | values)


FILES |= {
    "runs/seed1/config.json": _run_config(seed=1),
    "runs/typed/config.json": _run_config(seed="one"),
    "runs/range/config.json": _run_config(seed=-1),
    "runs/newer/config.json": _run_config(sead=1),
    "runs/facts/config.json": _run_config(),
    "runs/facts/data.json": '{"mean": [0.5]}',
    "runs/started/config.json": _run_config(),
    "runs/started/data.json": json.dumps(
        {"mean": [0], "std": [1], "class_names": ["0"], "image_shape": [8, 8, 1]}
    ),
}

C = "--config=configs/digits.py"

# Arguments after `python -m nfnet_jax.train`, and what the line must hold.
TRAIN = [
    # The config file.
    ([], ["--config is missing", "configs/digits.py"]),
    (["--config"], ["--config has no value"]),
    (["--config="], ["--config", "no such file"]),
    (["--config=configs/digit.py"], ["configs/digit.py", "'configs/digits.py'?"]),
    (["--config", "digits"], ["'digits'", "'configs/digits.py'?"]),
    (["--config=configs"], ["directory", "'configs/digits.py'?"]),
    (["--config=notes.txt"], ["notes.txt", "SyntaxError", "line 1"]),
    (["--config=raises.py"], ["raises.py, line 2", "ZeroDivisionError"]),
    (["--config=raises_two_lines.py"], ["line 2", "ValueError: one two"]),
    (["--config=exits.py"], ["exits.py, line 1", "SystemExit"]),
    (["--config=without.py"], ["without.py", "get_config()"]),
    (["--config=none.py"], ["returned NoneType", "base_config()"]),
    (["--config=foreign.py"], ["no key 'name'", "base_config()"]),
    (["--config=unknown.py"], ["line 8", "learning_rat'", "'optim.learning_rate'?"]),
    (["--config=unlocked.py"], ["'optim.lr'", "'optim.learning_rate'?"]),
    (["--config=wrong_type.py"], ["line 8", "epochs is ten (str)", "float"]),
    (["--config=section.py"], ["line 8", "schedule is linear", "section of keys"]),
    (["--config=negative.py"], ["optim.momentum is -1.0", "in [0, 1)"]),
    (["--config=unset.py"], ["optim.momentum is unset", "in [0, 1)"]),
    ([f"{C}:fast"], ["configs/digits.py", "get_config() takes 0 positional"]),
    ([C, C], [C, "twice"]),
    # Flags and arguments.
    ([C, "config.seed=1"], ["unexpected argument 'config.seed=1'", "--FLAG=VALUE"]),
    ([C, "--", "x"], ["unexpected argument 'x'"]),
    ([C, "--config.log.tensorboard", "no"], ["unexpected argument 'no'"]),
    ([C, "--config.seed"], ["seed has no value", "a whole number"]),
    ([C, "--workdir="], ["--workdir is empty"]),
    ([C, "--work_dir=x"], ["--work_dir", "'--workdir'?"]),
    ([C, "--lr=1"], ["--lr", "'--config.optim.learning_rate'?"]),
    ([C, "--cfg.seed=1"], ["--cfg.seed", "'--config.seed'?"]),
    ([C, "--noconfig.log.tensorboard=1"], ["does not take an argument"]),
    (["--flagfile=absent", C], ["unknown flag --flagfile"]),
    (["--help=perhaps"], ["--help is 'perhaps'", "true or false"]),
    # The work directory.
    ([C, "--workdir=notes.txt"], ["notes.txt", "is a file", "a directory"]),
    ([C, "--workdir=notes.txt/run"], ["notes.txt/run", "Not a directory"]),
    ([C, "--workdir=runs/" + "x" * 300], ["File name too long"]),
    ([C, "--workdir=runs/seed1"], ["seed is 1 there, 0 here", "another --workdir"]),
    ([C, "--workdir=runs/newer"], ["runs/newer", "sead is 1 there", "--workdir"]),
    ([C, "--workdir=runs/damaged"], ["runs/damaged/config.json is damaged"]),
    ([C, "--workdir=runs/list"], ["runs/list/config.json is damaged", "object"]),
]

# What follows `--config=configs/digits.py --config.`, and what the line must hold.
# `tests/config` has the other keys, ranges, choices and notations.
OVERRIDES = [
    # Unknown keys, and sections.
    ("lr=0.1", ["'lr'", "'optim.learning_rate'?"]),
    ("optimizer.lr=0.1", ["'optimizer.lr'", "'optim.learning_rate'?"]),
    ("optim.learning-rate=1", ["'optim.learning_rate'?"]),
    ("optim.lr.x=1", ["'optim.lr.x'", "learning_rate"]),
    ("data.path=/data", ["'data.path'", "dir"]),
    ("SEED=1", ["'SEED'", "'seed'?"]),
    ("noseed", ["'noseed'", "'seed'?"]),
    ("qqqq=1", ["'qqqq'", "python -m nfnet_jax.config"]),
    ("model=nf_resnet50", ["'model' is a section", "model.KEY", "name"]),
    ("optim.schedule=linear", ["optim.schedule.KEY", "warmup_epochs"]),
    # Types, ranges and choices.
    ("seed=abc", ["seed is 'abc'", "a whole number"]),
    ("seed=1.5", ["seed is '1.5'", "a whole number"]),
    ("train.steps=1e3", ["train.steps is '1e3'", "did you mean 1000?"]),
    ("data.batch_size=", ["data.batch_size is ''", "a whole number"]),
    ("optim.learning_rate=0,1", ["'0,1'", "a number"]),
    ("optim.nesterov=maybe", ["optim.nesterov is 'maybe'", "true or false"]),
    ("optim.agc.exclude=3", ["optim.agc.exclude is (3,)", "regular expressions"]),
    ("optim.agc.exclude=('a',", ["optim.agc.exclude", "regular expressions"]),
    ("optim.agc.exclude=('',)", ["optim.agc.exclude is ('',)", "regular"]),
    ("name=../elsewhere", ["'../elsewhere'", "a plain name"]),
    ("model.name=", ["model.name is ''", "non-empty"]),
    ("optim.learning_rate=nan", ["optim.learning_rate is nan", "a number"]),
    ("optim.learning_rate=1e50", ["optim.learning_rate is 1e+50", "a number"]),
    ("optim.schedule.name=cosin", ["'cosin'", "cosine, linear, step, constant"]),
    # Models.
    ("model.name=nf_resnet5", ["'nf_resnet5'", "'nf_resnet50'?"]),
    ("model.name=nf_wrn_10", ["'nf_wrn_10'", "nf_wrn_DEPTH_WIDTH"]),
    ("model.name=nf_wrn_11_1", ["depth 11", "6n + 4", "10"]),
    ("model.name=nf_wrn_4_1", ["depth 4", "6n + 4", "10"]),
    ("model.se_ratio=0.5", ["no option 'se_ratio'", "stochastic_depth"]),
    # What the data or the parameters do not fit.
    ("model.num_classes=5", ["model.num_classes is 5", "at least 10", "digits"]),
    ("data.augment.crop_padding=8", ["crop_padding is 8", "less than the 8 pixels"]),
    ("data.batch_size=5000", ["data.batch_size is 5000", "at most 1438"]),
    ("optim.accumulate=3", ["data.batch_size is 64", "multiple of", "accumulate"]),
    ("optim.agc.exclude=clasifier", ["'clasifier'", "'classifier'?"]),
    ("optim.weight_decay_exclude=('*',)", ["'*'", "not a regular expression"]),
    # Data sets; `tests/data/sources` has more.
    ("data.name=digts", ["'digts'", "'digits'?"]),
    ("data.name=tfds:mnist", ["is not prepared in", "nfnet_jax[prepare]"]),
    ("data.train_split=trian", ["data.train_split is 'trian'", "'train'?"]),
]
CIFAR = "--config.data.name=tfds:cifar10"

# Arguments after `python -m nfnet_jax.evaluate`, and what the line must hold.
EVALUATE = [
    ([], ["--workdir is missing", "the directory of a run"]),
    (["--workdir=runs/sead1"], ["'runs/sead1' holds no run", "'seed1'?"]),
    (["--workdir=runs"], ["'runs' holds no run", "did you mean 'runs/"]),
    (["--workdir=notes.txt"], ["'notes.txt' holds no run"]),
    (["--workdir=runs/binary"], ["runs/binary/config.json is damaged"]),
    (["--workdir=runs/typed"], ["runs/typed", "seed is 'one'", "whole number"]),
    (["--workdir=runs/range"], ["runs/range", "seed is -1", "[0, 4294967296)"]),
    (["--workdir=runs/newer"], ["runs/newer", "'sead'", "'seed'?"]),
    (["--workdir=runs/seed1"], ["runs/seed1", "holds no complete checkpoint"]),
    (["--workdir=runs/seed1", "--split=tests"], ["is 'tests'", "'test'?"]),
    (["--workdir=runs/seed1", C], ["--config", "--workdir, --data_dir, --split"]),
]

P = "photo.png"
NF50 = "--model=nf_resnet50"

# Arguments after `python -m nfnet_jax.predict`, and what the line must hold.
PREDICT = [
    ([P], ["--workdir is missing", "--model and --weights"]),
    (["--workdir=runs/seed1"], ["no images", "files or directories"]),
    (["--workdir=runs/seed1", "foto.png"], ["'foto.png'", "'photo.png'?"]),
    (["--workdir=runs/seed1", "--", "--json"], ["'--json' does not exist"]),
    (["--workdir=runs/seed1", P], ["runs/seed1/data.json", "No such file"]),
    (["--workdir=runs/facts", P], ["runs/facts/data.json is damaged"]),
    ([P, "--workdir=runs/started"], ["runs/started", "no complete checkpoint"]),
    (["--model=nf_resnet5", "--weights=a.npz", P], ["'nf_resnet50'?"]),
    ([NF50, "--weights=notes.txt", P], ["notes.txt"]),
    (["--workdir=runs/seed1", P, "--top=0"], ["--top is '0'", "at least 1"]),
    (["--workdir=runs/seed1", P, "--labels=note.txt"], ["note.txt", "'notes.txt'?"]),
]

# Arguments after `python -m nfnet_jax.export`, and what the line must hold.
OUT, W = "--output=net.jaxexport", "--weights=weights.npz"
EXPORT = [
    ([], ["--output is missing", "f0.jaxexport"]),
    ([OUT], ["--workdir is missing", "--model and --weights"]),
    ([OUT, NF50], ["--weights is missing", "--model needs it"]),
    ([OUT, W], ["--model is missing", "--weights needs it"]),
    ([OUT, NF50, W, "--workdir=runs/seed1"], ["--workdir and --model exclude"]),
    ([OUT, NF50, W, "--image_size=99999"], ["--image_size is '99999'", "[1, 4096]"]),
    ([OUT, NF50, W, "--format=onxn"], ["format 'onxn'", "jax, onnx", "'onnx'?"]),
    (["--output=absent/net", NF50, W], ["'absent/net'", "is not a directory"]),
    (["--output=configs", NF50, W], ["'configs'", "a directory, expected a file"]),
    ([OUT, "--model=nf_resnet5", W], ["'nf_resnet5'", "'nf_resnet50'?"]),
    ([OUT, NF50, W], ["weights.npz"]),
    ([OUT, NF50, "--weights=absent.npz"], ["absent.npz"]),
    ([OUT, NF50, "--weights=nfnet_f9"], ["'nfnet_f9'", "'nfnet_f0'?"]),
    ([OUT, "--workdir=runs/started"], ["runs/started/checkpoints", "no complete"]),
]

TRAIN += [([C, f"--config.{value}"], words) for value, words in OVERRIDES]
TRAIN += [
    (
        [C, CIFAR, "--config.data.dir=data"],
        ["is not prepared in", "/data", "could not be downloaded", "place the file at"],
    ),
    ([C, CIFAR, "--config.data.dir=dta"], ["data.dir is 'dta', no such", "'data'?"]),
]
TABLES = {"train": TRAIN, "evaluate": EVALUATE, "predict": PREDICT, "export": EXPORT}
CASES = [(main, *case) for main, table in TABLES.items() for case in table]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory of configs and runs to err in, without network and TensorFlow."""

    def no_network(*_, **__):
        raise OSError("no network in tests")

    def no_tensorflow(name, package=None):
        return None if name == "tensorflow" else find_spec(name, package)

    find_spec = importlib.util.find_spec
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "data" / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", no_tensorflow)
    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    # It sets a directory for all that the process compiles from then on.
    monkeypatch.setattr(cli, "prepare_jax", lambda: None)
    return tmp_path


def _files(root: pathlib.Path) -> dict[str, bytes | None]:
    """Everything below `root` but `data`, where data sets may be prepared."""
    paths = (path for path in root.rglob("*") if path.relative_to(root).parts)
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in paths
        if path.relative_to(root).parts[0] != "data"
    }


def _check_line(stderr: str, words: list[str]) -> None:
    assert stderr.startswith("error: ")
    assert stderr.endswith("\n") and stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in stderr


def _run_here(main: str, arguments: list[str], monkeypatch, capsys) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", [f"{main}.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.run(MAINS[main])
    return exit_.value.code, capsys.readouterr().err


def test_the_table_is_large_enough():
    assert len({(main, *arguments) for main, arguments, _ in CASES}) >= 60


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    CASES,
    ids=[" ".join([main, *arguments])[:80] for main, arguments, _ in CASES],
)
def test_one_line_and_nothing_written(
    main, arguments, words, here, monkeypatch, capsys
):
    before = _files(here)
    code, stderr = _run_here(main, arguments, monkeypatch, capsys)
    assert code == 2
    _check_line(stderr, words)
    assert _files(here) == before


def test_a_damaged_checkpoint_is_told(here, monkeypatch, capsys):
    config = base_config()
    config.model.name = "nf_wrn_10_1"
    (here / "runs/run").mkdir()
    (here / "runs/run/config.json").write_text(json.dumps(to_json(config)))
    with Checkpoints("runs/run") as checkpoints:
        checkpoints.save(Experiment(config).state)
    for damage, words in (
        (lambda path: path.write_bytes(b""), "0 manifest.json is damaged"),
        (lambda path: path.unlink(), "0 was not completed"),
    ):
        for path in (here / "runs/run/checkpoints/0").rglob("*"):
            if path.is_file():
                damage(path)
        before = _files(here)
        arguments = ["--workdir=runs/run"]
        code, stderr = _run_here("evaluate", arguments, monkeypatch, capsys)
        assert code == 2
        _check_line(stderr, ["runs/run", "no sound checkpoint", words])
        assert _files(here) == before


def test_a_process_says_the_same(here, monkeypatch, capsys):
    arguments = [C, "--config.optim.lr=0.1"]
    process = subprocess.run(
        [sys.executable, "-m", "nfnet_jax.train", *arguments],
        capture_output=True,
        text=True,
    )
    code, stderr = _run_here("train", arguments, monkeypatch, capsys)
    assert (process.stdout, process.stderr, process.returncode) == ("", stderr, code)


def test_overrides_may_stand_before_the_config(here):
    one, other = (
        cli.parse(["train.py", *arguments], "", config="needed").config
        for arguments in (["--config.seed=3", C], [C, "--config.seed=3"])
    )
    assert one.seed == 3
    assert to_json(one) == to_json(other)
