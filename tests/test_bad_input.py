"""Bad input gets one line and exit code 2: no traceback, nothing half written."""

import importlib.util
import json
import os
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
    "syntax.py": "def get_config(:\n",
    "raises.py": "def get_config():\n    return 1 / 0\n",
    "raises_two_lines.py": "def get_config():\n    raise ValueError('one\\ntwo')\n",
    "imports.py": "import no_such_module\n",
    "opens.py": "open('absent.txt')\n",
    "exits.py": "raise SystemExit(3)\n",
    "without.py": "x = 1\n",
    "none.py": "def get_config():\n    pass\n",
    "dict.py": "def get_config():\n    return {'seed': 1}\n",
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
    "runs/cut/config.json": "",
    "runs/list/config.json": "[1]",
    "runs/binary/config.json": b"\xff\xfe\x00",
    "photo.png": b"\x89PNG\r\n",
    "texts/notes.txt": "a directory without images\n",
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
    "runs/newer_section/config.json": _run_config(optimizer={"lr": 1}),
    "runs/flat/config.json": _run_config(optim=1),
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
    (["configs/digits.py"], ["unexpected argument 'configs/digits.py'"]),
    ([C, "--flagfile=flags"], ["unknown flag --flagfile"]),
    (["--config=configs/digit.py"], ["configs/digit.py", "'configs/digits.py'?"]),
    (["--config", "configs/digits"], ["no such file", "'configs/digits.py'?"]),
    (["--config=conf/digits.py"], ["conf/digits.py", "'configs/digits.py'?"]),
    (["--config=digits"], ["'digits'", "'configs/digits.py'?"]),
    (["--config=configs"], ["directory", "'configs/digits.py'?"]),
    (["--config=notes.txt"], ["notes.txt", "SyntaxError", "line 1"]),
    (["--config=syntax.py"], ["syntax.py", "SyntaxError", "line 1"]),
    (["--config=raises.py"], ["raises.py, line 2", "ZeroDivisionError"]),
    (["--config=raises_two_lines.py"], ["line 2", "ValueError: one two"]),
    (["--config=imports.py"], ["imports.py, line 1", "no_such_module"]),
    (["--config=opens.py"], ["opens.py, line 1", "absent.txt"]),
    (["--config=exits.py"], ["exits.py, line 1", "SystemExit"]),
    (["--config=without.py"], ["without.py", "get_config()"]),
    (["--config=none.py"], ["returned NoneType", "base_config()"]),
    (["--config=none.py", "--config.seed=1"], ["returned NoneType", "base_config()"]),
    (["--config=dict.py"], ["returned dict", "base_config()"]),
    (["--config=dict.py", "--config.seed=1"], ["returned dict", "base_config()"]),
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
    ([C, "fast"], ["unexpected argument 'fast'", "--FLAG=VALUE"]),
    ([C, "config.seed=1"], ["unexpected argument 'config.seed=1'"]),
    ([C, "--", "x"], ["unexpected argument 'x'"]),
    ([C, "--config.log.tensorboard", "no"], ["unexpected argument 'no'"]),
    ([C, "--config.seed"], ["seed has no value", "a whole number"]),
    ([C, "--workdir"], ["--workdir"]),
    ([C, "--workdir="], ["--workdir is empty"]),
    ([C, "--work_dir=x"], ["--work_dir", "'--workdir'?"]),
    ([C, "--workdri=x"], ["--workdri", "'--workdir'?"]),
    (["--configs=configs/digits.py"], ["--configs", "'--config'?"]),
    ([C, "--steps=100"], ["--steps", "'--config.train.steps'?"]),
    ([C, "--lr=1"], ["--lr", "'--config.optim.learning_rate'?"]),
    ([C, "--optim.momentum=0"], ["'--config.optim.momentum'?"]),
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
    ([C, "--workdir=runs/cut"], ["runs/cut/config.json is damaged"]),
    ([C, "--workdir=runs/list"], ["runs/list/config.json is damaged", "object"]),
    ([C, "--workdir=runs/binary"], ["runs/binary/config.json is damaged"]),
]

# What follows `--config=configs/digits.py --config.`, and what the line must hold.
OVERRIDES = [
    # Unknown keys.
    ("lr=0.1", ["'lr'", "'optim.learning_rate'?"]),
    ("optim.lr=0.1", ["'optim.lr'", "'optim.learning_rate'?"]),
    ("train.lr=0.1", ["'train.lr'", "'optim.learning_rate'?"]),
    ("optimizer.lr=0.1", ["'optimizer.lr'", "'optim.learning_rate'?"]),
    ("learning_rate=0.1", ["'learning_rate'", "'optim.learning_rate'?"]),
    ("optim.learning_rat=1", ["'optim.learning_rate'?"]),
    ("optim.Learning_Rate=1", ["'optim.learning_rate'?"]),
    ("optim.learning-rate=1", ["'optim.learning_rate'?"]),
    ("optim..momentum=1", ["'optim.momentum'?"]),
    ("optim.wd=1", ["'optim.weight_decay'?"]),
    ("optim.ema=0.9", ["'optim.ema_decay'?"]),
    ("optim.agc.clip=1", ["'optim.agc.clipping'?"]),
    ("optim.lr.x=1", ["'optim.lr.x'", "learning_rate"]),
    ("batch_size=64", ["'data.batch_size'?"]),
    ("train.batch_size=64", ["'data.batch_size'?"]),
    ("data.path=/data", ["'data.path'", "dir"]),
    ("data.augment.crop=4", ["'data.augment.crop_padding'?"]),
    ("epochs=3", ["'train.epochs'?"]),
    ("train.epoch=3", ["'train.epochs'?"]),
    ("schedule=linear", ["'optim.schedule.name'?"]),
    ("model.se=0.5", ["'model.se_ratio'?"]),
    ("SEED=1", ["'SEED'", "'seed'?"]),
    ("noseed", ["'noseed'", "'seed'?"]),
    ("qqqq=1", ["'qqqq'", "python -m nfnet_jax.config"]),
    ("=1", ["''", "python -m nfnet_jax.config"]),
    # Sections.
    ("model=nf_resnet50", ["'model' is a section", "model.KEY", "name"]),
    ("data=tfds:cifar10", ["'data' is a section", "data.KEY", "name"]),
    ("data.augment=true", ["'data.augment' is a section", "flip"]),
    ("optim.schedule=linear", ["optim.schedule.KEY", "warmup_epochs"]),
    ("optim={'momentum': 1}", ["'optim' is a section", "momentum"]),
    # Types.
    ("seed=abc", ["seed is 'abc'", "a whole number"]),
    ("seed=1.5", ["seed is '1.5'", "a whole number"]),
    ("train.steps=1e3", ["train.steps is '1e3'", "did you mean 1000?"]),
    ("train.steps=none", ["train.steps is 'none'", "a whole number"]),
    ("data.batch_size=64.0", ["data.batch_size is '64.0'", "did you mean 64?"]),
    ("data.batch_size=", ["data.batch_size is ''", "a whole number"]),
    ("train.epochs=ten", ["train.epochs is 'ten'", "a number above 0"]),
    ("optim.learning_rate=0,1", ["'0,1'", "a number"]),
    ("optim.nesterov=maybe", ["optim.nesterov is 'maybe'", "true or false"]),
    ("model.weight_standardization=2", ["is '2'", "true or false"]),
    ("optim.agc.exclude=3", ["optim.agc.exclude is (3,)", "regular expressions"]),
    ("optim.agc.exclude=('a',", ["optim.agc.exclude", "regular expressions"]),
    ("optim.agc.exclude=('',)", ["optim.agc.exclude is ('',)", "regular"]),
    ("name=", ["name is ''", "a plain name"]),
    ("name=../elsewhere", ["'../elsewhere'", "a plain name"]),
    ("model.name=", ["model.name is ''", "non-empty"]),
    # Ranges.
    ("seed=-1", ["seed is -1", "[0, 4294967296)"]),
    ("data.augment.crop_padding=8", ["crop_padding is 8", "less than the 8 pixels"]),
    ("data.augment.cutout=9", ["cutout is 9", "at most the 8 pixels"]),
    ("optim.learning_rate=nan", ["optim.learning_rate is nan", "a number"]),
    ("optim.learning_rate=inf", ["optim.learning_rate is inf", "a number"]),
    ("optim.learning_rate=1e50", ["optim.learning_rate is 1e+50", "a number"]),
    ("optim.momentum=1", ["optim.momentum is 1.0", "[0, 1)"]),
    ("optim.agc.eps=0", ["optim.agc.eps is 0.0", "above 0"]),
    ("train.steps=0", ["train.steps is 0", "at least 1"]),
    # Choices.
    ("optim.schedule.name=cosin", ["'cosin'", "cosine, linear, step, constant"]),
    ("train.dtype=float16", ["'float16'", "float32, bfloat16"]),
    ("model.activation=swish", ["model.activation is 'swish'", "silu"]),
    ("model.gamma=exakt", ["model.gamma is 'exakt'", "'exact'?"]),
    ("model.beta=stdd", ["model.beta is 'stdd'", "'std'?"]),
    # Models.
    ("model.name=nf_resnet5", ["'nf_resnet5'", "'nf_resnet50'?"]),
    ("model.name=resnet50", ["'resnet50'", "'nf_resnet50'?"]),
    ("model.name=NF-ResNet50", ["'NF-ResNet50'", "'nf_resnet50'?"]),
    ("model.name=nf_wrn_28x10", ["'nf_wrn_28x10'", "'nf_wrn_28_10'?"]),
    ("model.name=nf_wrn_10", ["'nf_wrn_10'", "nf_wrn_DEPTH_WIDTH"]),
    ("model.name=nf_wrn_11_1", ["depth 11", "6n + 4", "10"]),
    ("model.name=nf_wrn_4_1", ["depth 4", "6n + 4", "10"]),
    ("model.name=nf_wrn_10_0", ["nf_wrn_10_0", "0 channels", "at least one"]),
    ("model.name=nf_bottleneck_0_16", ["0 blocks", "at least one"]),
    ("model.se_ratio=0.5", ["no option 'se_ratio'", "stochastic_depth"]),
    ("model.alpha=0", ["model.alpha is 0.0", "above 0"]),
    ("model.drop_rate=1", ["model.drop_rate is 1.0", "[0, 1)"]),
    ("model.num_classes=0", ["model.num_classes is 0", "at least 1"]),
    ("model.num_classes=5", ["model.num_classes is 5", "at least 10", "digits"]),
    # What the data or the parameters do not fit.
    ("data.batch_size=5000", ["data.batch_size is 5000", "at most 1438"]),
    ("optim.accumulate=3", ["data.batch_size is 64", "multiple of", "accumulate"]),
    ("optim.agc.exclude=clasifier", ["'clasifier'", "'classifier'?"]),
    ("optim.weight_decay_exclude=('*',)", ["'*'", "not a regular expression"]),
    ("optim.agc.exclude=('zzz',)", ["'zzz' matches no parameter"]),
    # Data sets.
    ("data.name=digts", ["'digts'", "'digits'?"]),
    ("data.name=cifar10", ["'cifar10'", "'tfds:cifar10'?"]),
    ("data.name=tfds:cifar-10", ["'tfds:cifar-10'", "'tfds:cifar10'?"]),
    ("data.name=imagenet", ["'imagenet'", "tfds:NAME"]),
    ("data.train_split=trian", ["data.train_split is 'trian'", "'train'?"]),
    ("data.eval_split=validation", ["data.eval_split is 'validation'", "train, test"]),
    ("data.train_split=train[:50", ["'train[:50'", "such as train[:90%]"]),
    ("data.train_split=train[:0]", ["'train[:0]'", "holds no examples"]),
    ("data.max_bad_fraction=1", ["data.max_bad_fraction is 1", "[0, 1)"]),
    ("data.loader=disk", ["data.loader is 'disk'", "auto, memory, stream"]),
]

# Data sets that cannot be had: every line says where they were looked for.
DATA_SETS = [
    ("tfds:cifar10", ["could not be downloaded", "place the file at"]),
    ("tfds:mnist", ["nfnet_jax[prepare]", "set data.dir"]),
    ("tfds:cifar11", ["no set 'cifar11'", "did you mean 'cifar10"]),
    ("tfds:cifar10/x", ["no configuration 'x'"]),
    ("tfds:cifar10:9.9.9", ["9.9.9", "3.0.2"]),
    ("tfds:imagenette/170px", ["'170px'", "'160px'?"]),
]

# Arguments after `python -m nfnet_jax.evaluate`, and what the line must hold.
EVALUATE = [
    ([], ["--workdir is missing", "the directory of a run"]),
    (["runs/seed1"], ["unexpected argument 'runs/seed1'"]),
    (["--workdir"], ["--workdir"]),
    (["--workdir="], ["--workdir is empty"]),
    (["--workdri=runs/seed1"], ["--workdri", "'--workdir'?"]),
    (["--workdir=runs/absent"], ["'runs/absent' holds no run", "config.json"]),
    (["--workdir=runs/sead1"], ["'runs/sead1' holds no run", "'seed1'?"]),
    (["--workdir=runs"], ["'runs' holds no run", "did you mean 'runs/"]),
    (["--workdir=notes.txt"], ["'notes.txt' holds no run"]),
    (["--workdir=runs/damaged"], ["runs/damaged/config.json is damaged"]),
    (["--workdir=runs/cut"], ["runs/cut/config.json is damaged"]),
    (["--workdir=runs/list"], ["runs/list/config.json is damaged"]),
    (["--workdir=runs/binary"], ["runs/binary/config.json is damaged"]),
    (["--workdir=runs/typed"], ["runs/typed", "seed is 'one'", "whole number"]),
    (["--workdir=runs/range"], ["runs/range", "seed is -1", "[0, 4294967296)"]),
    (["--workdir=runs/newer"], ["runs/newer", "'sead'", "'seed'?"]),
    (["--workdir=runs/newer_section"], ["'optimizer.lr'", "learning_rate"]),
    (["--workdir=runs/flat"], ["runs/flat", "'optim' is a section"]),
    (["--workdir=runs/seed1"], ["runs/seed1", "holds no complete checkpoint"]),
    (["--workdir=runs/seed1", "--split=tests"], ["is 'tests'", "'test'?"]),
    (["--workdir=runs/seed1", "--data-dir=x"], ["--data-dir", "'--data_dir'?"]),
    (["--workdir=runs/seed1", "--config.seed=1"], ["--config.seed", "--split"]),
    (["--workdir=runs/seed1", C], ["--config", "--workdir, --data_dir, --split"]),
]

P = "photo.png"
NF50 = "--model=nf_resnet50"

# Arguments after `python -m nfnet_jax.predict`, and what the line must hold.
PREDICT = [
    ([], ["--workdir is missing", "--model and --weights"]),
    ([P], ["--workdir is missing", "--model and --weights"]),
    (["--workdir", P], ["no images", "files or directories"]),
    (["--workdir=runs/seed1"], ["no images", "files or directories"]),
    (["--workdir=", P], ["--workdir is empty"]),
    # Images.
    (["--workdir=runs/seed1", "foto.png"], ["'foto.png'", "'photo.png'?"]),
    (["--workdir=runs/seed1", "x/y.png"], ["'x/y.png'", "no directory 'x'"]),
    (["--workdir=runs/seed1", "texts"], ["texts holds no images", ".jpg"]),
    (["--workdir=runs/seed1", "--", "--json"], ["'--json' does not exist"]),
    # Runs.
    (["--workdir=runs/sead1", P], ["'runs/sead1' holds no run", "'seed1'?"]),
    (["--workdir=runs/damaged", P], ["runs/damaged/config.json is damaged"]),
    (["--workdir=runs/seed1", P], ["runs/seed1/data.json", "No such file"]),
    (["--workdir=runs/facts", P], ["runs/facts/data.json is damaged"]),
    ([P, "--workdir=runs/started"], ["runs/started", "no complete checkpoint"]),
    # Published weights.
    ([NF50, P], ["--weights is missing", "--model needs it"]),
    (["--weights=a.npz", P], ["--model is missing", "--weights needs it"]),
    (["--workdir=runs/seed1", NF50, P], ["--workdir and --model exclude"]),
    (["--model=nf_resnet5", "--weights=a.npz", P], ["'nf_resnet50'?"]),
    ([NF50, "--weights=absent.npz", P], ["absent.npz"]),
    ([NF50, "--weights=notes.txt", P], ["notes.txt"]),
    ([NF50, "--weights=nf_resnet50.typo", P], ["nf_resnet50.typo"]),
    # Flags.
    (["--workdir=runs/seed1", P, "--top=0"], ["--top is '0'", "at least 1"]),
    (["--workdir=runs/seed1", P, "--top=all"], ["--top is 'all'", "whole number"]),
    (["--workdir=runs/seed1", P, "--top=-1"], ["--top is '-1'", "whole number"]),
    (["--workdir=runs/seed1", P, "--json=perhaps"], ["json", "perhaps"]),
    (["--workdir=runs/seed1", P, "--lables=x"], ["--lables", "'--labels'?"]),
    (["--workdir=runs/seed1", P, "--labels"], ["--labels"]),
    (["--workdir=runs/seed1", P, "--labels=note.txt"], ["note.txt", "'notes.txt'?"]),
    (["--workdir=runs/seed1", P, "-k=5"], ["unknown flag --k", "--top"]),
]

# Arguments after `python -m nfnet_jax.export`, and what the line must hold.
OUT, W = "--output=net.jaxexport", "--weights=weights.npz"
M = "--model=nf_resnet50"
EXPORT = [
    ([], ["--output is missing", "f0.jaxexport"]),
    ([OUT], ["--workdir is missing", "--model and --weights"]),
    ([OUT, M], ["--weights is missing", "--model needs it"]),
    ([OUT, W], ["--model is missing", "--weights needs it"]),
    ([OUT, M, W, "--workdir=runs/seed1"], ["--workdir and --model exclude"]),
    ([OUT, "--weigths=x"], ["--weigths", "'--weights'?"]),
    ([OUT, M, W, "--image_size=0"], ["--image_size is '0'", "[1, 4096]"]),
    ([OUT, M, W, "--image_size=-8"], ["--image_size is '-8'", "[1, 4096]"]),
    ([OUT, M, W, "--image_size=224.0"], ["--image_size is '224.0'", "whole number"]),
    ([OUT, M, W, "--image_size=99999"], ["--image_size is '99999'", "[1, 4096]"]),
    ([OUT, M, W, "--format=onxn"], ["format 'onxn'", "jax, onnx", "'onnx'?"]),
    (["--output=absent/net", M, W], ["'absent/net'", "is not a directory"]),
    (["--output=configs", M, W], ["'configs'", "a directory, expected a file"]),
    (["--output=notes.txt/net", M, W], ["'notes.txt/net'", "not a directory"]),
    ([OUT, "--model=nf_resnet5", W], ["'nf_resnet5'", "'nf_resnet50'?"]),
    ([OUT, M, W], ["weights.npz"]),
    ([OUT, M, "--weights=absent.npz"], ["absent.npz"]),
    ([OUT, M, "--weights=nfnet_f9"], ["'nfnet_f9'", "'nfnet_f0'?"]),
    ([OUT, "--workdir=runs/absent"], ["'runs/absent' holds no run"]),
    ([OUT, "--workdir=runs/damaged"], ["runs/damaged/config.json is damaged"]),
    ([OUT, "--workdir=runs/seed1"], ["runs/seed1/data.json"]),
    ([OUT, "--workdir=runs/started"], ["runs/started/checkpoints", "no complete"]),
]

CASES = (
    [("train", arguments, words) for arguments, words in TRAIN]
    + [("train", [C, f"--config.{value}"], words) for value, words in OVERRIDES]
    + [
        (
            "train",
            [C, f"--config.data.name={name}", "--config.data.dir=data"],
            [name, "is not prepared in", "/data", *words],
        )
        for name, words in DATA_SETS
    ]
    + [
        (
            "train",
            [C, "--config.data.name=tfds:cifar10", "--config.data.dir=dta"],
            ["data.dir is 'dta', no such directory; did you mean 'data'?"],
        )
    ]
    + [("evaluate", arguments, words) for arguments, words in EVALUATE]
    + [("predict", arguments, words) for arguments, words in PREDICT]
    + [("export", arguments, words) for arguments, words in EXPORT]
)


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


def _run_process(main: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", f"nfnet_jax.{main}", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )


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


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("truncated", ["no sound checkpoint", "0 manifest.json is damaged"]),
        ("removed", ["no sound checkpoint", "0 was not completed"]),
    ],
)
def test_a_damaged_checkpoint_is_told(damage, words, here, monkeypatch, capsys):
    (here / "runs/run").mkdir()
    config = base_config()
    config.model.name = "nf_wrn_10_1"
    (here / "runs/run/config.json").write_text(json.dumps(to_json(config)))
    with Checkpoints("runs/run") as checkpoints:
        checkpoints.save(Experiment(config).state)
    for path in (here / "runs/run/checkpoints/0").rglob("*"):
        if path.is_file():
            path.write_bytes(b"") if damage == "truncated" else path.unlink()
    before = _files(here)
    code, stderr = _run_here("evaluate", ["--workdir=runs/run"], monkeypatch, capsys)
    assert code == 2
    _check_line(stderr, ["runs/run", *words])
    assert _files(here) == before


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        ("train", [C, "--config.optim.lr=0.1"], ["'optim.learning_rate'?"]),
        ("export", ["--output=net", "--workdir=runs/cut"], ["config.json is damaged"]),
    ],
)
def test_a_process_says_the_same(main, arguments, words, here, monkeypatch, capsys):
    before = _files(here)
    process = _run_process(main, *arguments)
    assert process.returncode == 2
    _check_line(process.stderr, words)
    assert process.stdout == ""
    assert _files(here) == before
    assert _run_here(main, arguments, monkeypatch, capsys) == (2, process.stderr)


def test_a_loss_that_is_not_finite_ends_the_run(here, monkeypatch, capsys):
    arguments = [
        C,
        "--workdir=runs/diverged",
        "--config.model.name=nf_bottleneck_1_4",
        "--config.train.steps=6",
        "--config.log.every_steps=1",
        "--config.log.tensorboard=false",
        "--config.optim.learning_rate=1e9",
        "--config.optim.agc.clipping=0",
        "--config.optim.schedule.warmup_epochs=0",
    ]
    code, stderr = _run_here("train", arguments, monkeypatch, capsys)
    assert code == 2
    words = ["step ", "the loss is", "optim.learning_rate", "optim.agc.clipping=0.1"]
    _check_line(stderr.splitlines(keepends=True)[-1], words)
    assert not (here / "runs/diverged/result.json").exists()


def test_overrides_may_stand_before_the_config(here):
    override = "--config.seed=3"
    one, other = (
        cli.parse(["train.py", *arguments], "", config="needed").config
        for arguments in ([override, C], [C, override])
    )
    assert one.seed == 3
    assert to_json(one) == to_json(other)
