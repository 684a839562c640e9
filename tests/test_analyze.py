"""python -m nfnet_jax.analyze, and its figures."""

import json
import re
import sys
import xml.etree.ElementTree

import jax
import pytest
from PIL import Image
from tiny_run import tiny_config

from nfnet_jax import analysis, analyze, cli
from nfnet_jax.analysis import plot_activations
from nfnet_jax.training.loop import train
from nfnet_jax.utils.errors import UserError

SMALL = ["--image_size=16", "--batch_size=2"]


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["analyze.py", *arguments])
    monkeypatch.setattr(cli, "prepare_jax", lambda: None)
    try:
        cli.run(analyze.main)
    except SystemExit as exit_:
        return exit_.code
    return 0


def test_table_json_and_figures(tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    arguments = ["--model=nf_wrn_10_1", *SMALL, f"--output={output}", "--check=0.5"]
    assert run(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "check passed: every block is within 0.5" in printed
    assert printed.count("stages_") >= 3 and "largest gradient" in printed
    found = json.loads((output / "analysis.json").read_text())
    assert [block["name"] for block in found["blocks"]] == [
        f"stages_{i}/transition" for i in range(3)
    ]
    assert all(block["predicted_var"] == 1.04 for block in found["blocks"])
    assert found["gradients"][0]["name"] == "stem/kernel"
    assert found["deviation"] is None
    with Image.open(output / "signal.png") as image:
        width, height = image.size
    assert width > 600 and height > 300
    xml.etree.ElementTree.parse(output / "signal.svg")


def test_a_failed_check_is_code_1_with_block_and_cause(monkeypatch, capsys):
    arguments = ["--model=nf_wrn_10_1", *SMALL, "--gradients=no", "--check=0.3"]
    assert run(monkeypatch, *arguments, "--config.model.gamma=none") == 1
    error = capsys.readouterr().err
    assert error.startswith("check failed: stages_0/transition: branch input variance")
    assert "lacks its γ" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model=nf_wrn_10_1", "--image_size=8"],
        # Maps of 1x1 in the end, in channels of few values.
        pytest.param(["--model=nf_wrn_16_2", "--image_size=4"], marks=pytest.mark.slow),
        ["--model=nf_wrn_10_1", "--image_size=16", "--config.seed=1"],
    ],
    ids=str,
)
def test_small_images_and_few_channels_are_no_fault(arguments, monkeypatch, capsys):
    """Zero padding and chance are found by measuring without them."""
    assert run(monkeypatch, *arguments, "--gradients=no", "--check=0.1") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("check passed: every block is within 0.1")
    assert re.search("Cause: (the borders of images this small|chance)", told)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (
            ["--model=nf_wrn_10_1", "--config.model.activation=elu"]
            + ["--config.model.gamma=none"],
            "Cause: the activation before stages_0/transition lacks its γ",
        ),
        (
            ["--model=nf_wrn_10_2", "--config.model.weight_standardization=False"],
            "branch/conv0 is not standardized",
        ),
        (
            ["--model=nf_wrn_28_2", "--config.model.beta=none", "--batch_size=32"],
            "Cause: β is left out",
        ),
    ],
    ids=str,
)
def test_small_images_do_not_hide_a_fault(arguments, cause, monkeypatch, capsys):
    small = ["--image_size=8", "--gradients=no", "--check=0.1"]
    assert run(monkeypatch, *arguments, *small) == 1
    error = capsys.readouterr().err
    assert error.startswith("check failed: ") and cause in error


def test_what_other_draws_show_too_is_no_chance(monkeypatch, capsys):
    def open_too_far(params):
        def scaled(path, leaf):
            return leaf * 0 + 3 if path[-1].key == "skip_gain" else leaf

        return jax.tree_util.tree_map_with_path(scaled, params)

    monkeypatch.setattr(analysis, "open_branches", open_too_far)
    arguments = ["--model=nf_wrn_10_1", "--image_size=8", "--check=0.1"]
    assert run(monkeypatch, *arguments, "--gradients=no") == 1
    error = capsys.readouterr().err
    assert "Left are α, the skip gains and the shortcut: other draws" in error


def test_no_cause_is_named_of_too_few_values(monkeypatch, capsys):
    arguments = ["--model=nf_wrn_10_1", "--image_size=4", "--batch_size=2"]
    arguments += ["--config.model.gamma=none", "--gradients=no", "--check=0.1"]
    assert run(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert "No cause is named: a channel has only" in error and "β" not in error


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    config = tiny_config(**{"train.steps": 8})
    config.data.eval_split = "test[:16]"
    config.data.eval_batch_size = 16
    train(config, str(workdir))
    return workdir


def test_a_run_is_measured_on_its_own_images(trained, monkeypatch, capsys):
    arguments = [f"--workdir={trained}", "--data", "config", "--gradients=no"]
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.count("stages_") == 3


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (["--workdir=RUN", "--image_size=8"], ["the network is trained"]),
        (["--workdir=RUN", "--data=config"], ["is trained", "are no white noise"]),
        (["--model=nf_wrn_10_1", "--data=config"], ["images are no white noise"]),
    ],
    ids=str,
)
def test_elsewhere_it_is_told_what_differs_and_no_cause(
    where, words, trained, monkeypatch, capsys
):
    """The skip gains of a trained network are not 1, real pixels are alike."""
    given = [argument.replace("RUN", str(trained)) for argument in where]
    assert run(monkeypatch, *given, "--gradients=no", "--check=0.01") == 1
    error = capsys.readouterr().err
    assert error.startswith("not as predicted: stages_") and error.count("\n") == 1
    for word in words:
        assert word in error
    assert "ause:" not in error and "β" not in error
    if "--data=config" in where:
        kept = float(re.search(r"2x2 averages keep ([\d.]+) of it", error)[1])
        assert 0.4 < kept < 0.9
    if "--workdir=RUN" in where:
        low, high = re.search(r"skip gains are (\S+) to (\S+) instead", error).groups()
        assert -0.5 < float(low) <= float(high) < 0.5


def test_gains_are_drawn_and_printed(tmp_path, monkeypatch, capsys):
    path = tmp_path / "gains.png"
    assert run(monkeypatch, f"--activations={path}") == 0
    assert "relu           1.712859" in capsys.readouterr().out
    with Image.open(path) as image:
        assert image.size[0] > 600
    with pytest.raises(UserError, match=r"gains.mp3.*\.png"):
        plot_activations({"relu": abs}, str(tmp_path / "gains.mp3"))


NF = "--model=nf_wrn_10_1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no network", "--model", "--workdir"]),
        ([NF, "--workdir=x"], ["--workdir excludes --model"]),
        (["--workdir=x", "--config.seed=1"], ["--workdir excludes"]),
        (["--workdir=absent"], ["'absent' holds no run"]),
        (["--model=nf_resnet5"], ["'nf_resnet50'?"]),
        (
            [NF, "--config.model.beta=stdd"],
            ["model.beta is 'stdd'", "one of std, var, none"],
        ),
        ([NF, "--data=noise"], ["--data is 'noise'", "gaussian, config"]),
        ([NF, "--data=config", "--image_size=8"], ["--config.data.image_size"]),
        ([NF, "--image_size=0"], ["--image_size is '0'", "[1, 65536]"]),
        ([NF, "--batch_size=two"], ["--batch_size is 'two'", "whole number"]),
        ([NF, "--check=ten"], ["--check is 'ten'", "in (0, 1)"]),
        ([NF, "--check=nan"], ["--check is 'nan'", "in (0, 1)"]),
        ([NF, "--gradients=maybe"], ["--gradients is 'maybe'", "one of yes, no"]),
        (["--model=bn_wrn_10_1", *SMALL, "--check=0.1"], ["not built on the β"]),
    ],
    ids=str,
)
def test_mistakes_are_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    for word in words:
        assert word in error
    assert not list(tmp_path.iterdir())
