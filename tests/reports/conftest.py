"""A short run on digits, with mistakes to show."""

import shutil
from types import SimpleNamespace

import pytest
from html_pages import parse

from nfnet_jax import report
from nfnet_jax.config import base_config
from nfnet_jax.reports import measured
from nfnet_jax.training.loop import train
from nfnet_jax.training.workdir import read_config
from nfnet_jax.utils import runtime


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The work directory of a run of 24 updates."""
    config = base_config()
    config.model.name = "nf_wrn_10_1"
    config.data.batch_size = 32
    config.optim.learning_rate = 0.05
    config.optim.ema_decay = 0.5
    config.train.steps = 24
    config.log.every_steps = 4
    config.log.tensorboard = False
    config.eval.every_epochs = 0.25
    workdir = str(tmp_path_factory.mktemp("runs") / "first")
    train(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def found(trained):
    """The measurements of that run."""
    return measured.measure_run(read_config(trained), trained, 24)


@pytest.fixture(scope="session")
def write(tmp_path_factory):
    """write(workdir, ..., known=measured) -> `path` of the report, its `text` and,
    parsed, `html`. `known` is taken for the first run, without measuring it."""

    def write(*workdirs: str, known=None):
        path = tmp_path_factory.mktemp("pages") / "report.html"
        measure_run = measured.measure_run

        def measure(config, workdir, most):
            is_known = known and workdir == str(workdirs[0])
            return known if is_known else measure_run(config, workdir, most)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runtime, "enable_compilation_cache", lambda: None)
            patch.setattr(measured, "measure_run", measure)
            report.main(["report.py", *map(str, workdirs), f"--output={path}"])
        text = path.read_text(encoding="utf-8")
        return SimpleNamespace(path=path, text=text, html=parse(text))

    return write


@pytest.fixture(scope="session")
def page(trained, found, write):
    """The report of that run."""
    return write(trained, known=found)


@pytest.fixture(scope="session")
def pair(trained, found, write, tmp_path_factory):
    """The report of that run and of another one, which has not ended."""
    other = tmp_path_factory.mktemp("runs") / ("a_long_name_" * 8 + "<i>&")
    shutil.copytree(trained, other)
    (other / "result.json").unlink()
    shutil.rmtree(other / "checkpoints")
    return write(trained, other, known=found)
