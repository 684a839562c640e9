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
from nfnet_jax.training.loop import train

SMALL = ["--image_size=16", "--batch_size=2"]


@pytest.fixture
def run(monkeypatch, capsys):
    """run(argument, ...) -> exit code, standard output and error of the command."""
    monkeypatch.setattr(cli, "prepare_jax", lambda: None)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["analyze.py", *arguments])
        code = 0
        try:
            cli.run(analyze.main)
        except SystemExit as exit_:
            code = exit_.code
        return code, *capsys.readouterr()

    return run


def test_table_json_and_figures(tmp_path, run):
    output = tmp_path / "out"
    arguments = ["--model=nf_wrn_10_1", *SMALL, f"--output={output}", "--check=0.5"]
    code, printed, _ = run(*arguments)
    assert code == 0
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
        assert image.width > 600 and image.height > 300
    xml.etree.ElementTree.parse(output / "signal.svg")


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
def test_small_images_and_few_channels_are_no_fault(arguments, run):
    """Zero padding and chance are found by measuring without them."""
    code, printed, _ = run(*arguments, "--gradients=no", "--check=0.1")
    told = printed.splitlines()[-1]
    assert code == 0 and told.startswith("check passed: every block is within 0.1")
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
def test_small_images_do_not_hide_a_fault(arguments, cause, run):
    small = ["--image_size=8", "--gradients=no", "--check=0.1"]
    code, _, error = run(*arguments, *small)
    assert code == 1
    assert re.match("check failed: stages_./.*: (branch input )?variance .*, ", error)
    assert cause in error and error.count("\n") == 1


def test_what_other_draws_show_too_is_no_chance(monkeypatch, run):
    def open_too_far(params):
        def scaled(path, leaf):
            return leaf * 0 + 3 if path[-1].key == "skip_gain" else leaf

        return jax.tree_util.tree_map_with_path(scaled, params)

    monkeypatch.setattr(analysis, "open_branches", open_too_far)
    arguments = ["--model=nf_wrn_10_1", "--image_size=8", "--check=0.1"]
    code, _, error = run(*arguments, "--gradients=no")
    expected = "Left are α, the skip gains and the shortcut: other draws"
    assert code == 1 and expected in error


def test_no_cause_is_named_of_too_few_values(run):
    arguments = ["--model=nf_wrn_10_1", "--image_size=4", "--batch_size=2"]
    arguments += ["--config.model.gamma=none", "--gradients=no", "--check=0.1"]
    code, _, error = run(*arguments)
    assert code == 1
    assert "No cause is named: a channel has only" in error and "β" not in error


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    few = {"data.eval_split": "test[:16]", "data.eval_batch_size": 16}
    train(tiny_config(**few, **{"train.steps": 8}), str(workdir))
    return workdir


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (["--workdir=RUN", "--image_size=8"], ["the network is trained"]),
        (["--workdir=RUN", "--data=config"], ["is trained", "are no white noise"]),
        (["--model=nf_wrn_10_1", "--data=config"], ["images are no white noise"]),
    ],
    ids=str,
)
def test_elsewhere_it_is_told_what_differs_and_no_cause(where, words, trained, run):
    """The skip gains of a trained network are not 1, real pixels are alike."""
    given = [argument.replace("RUN", str(trained)) for argument in where]
    code, printed, error = run(*given, "--gradients=no", "--check=0.01")
    assert code == 1 and printed.count("stages_") == 3
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


def test_gains_are_drawn_and_printed(tmp_path, run):
    path = tmp_path / "gains.png"
    code, printed, _ = run(f"--activations={path}")
    assert code == 0 and "relu           1.712859" in printed
    with Image.open(path) as image:
        assert image.size[0] > 600


NF = "--model=nf_wrn_10_1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no network", "--model", "--workdir"]),
        ([NF, "--workdir=x"], ["--workdir excludes --model"]),
        (["--workdir=x", "--config.seed=1"], ["--workdir excludes"]),
        (["--workdir=absent"], ["'absent' holds no run"]),
        (["--activations=gains.mp3"], ["gains.mp3", ".png"]),
        (["--model=nf_resnet5"], ["'nf_resnet50'?"]),
        (
            [NF, "--config.model.beta=stdd"],
            ["model.beta is 'stdd'", "one of std, var, none"],
        ),
        ([NF, "--data=noise"], ["--data is 'noise'", "gaussian, config"]),
        ([NF, "--data=config", "--image_size=8"], ["--config.data.image_size"]),
        ([NF, "--image_size=0"], ["--image_size is '0'", "[1, 65536]"]),
        ([NF, "--check=nan"], ["--check is 'nan'", "in (0, 1)"]),
        (["--model=bn_wrn_10_1", *SMALL, "--check=0.1"], ["not built on the β"]),
    ],
    ids=str,
)
def test_mistakes_are_one_line(arguments, words, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(*arguments)
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    for word in words:
        assert word in error
    assert not list(tmp_path.iterdir())
