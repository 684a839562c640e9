"""README and docs/ are true: commands run, examples run, links lead somewhere."""

import ast
import re
import runpy
import shlex
import shutil
import tomllib

import pytest
from optuna.trial import FixedTrial
from pages import PAGES, REPOSITORY, Block, anchors, blocks, commands, prose
from PIL import Image

from nfnet_jax import cli
from nfnet_jax.__main__ import dispatch
from nfnet_jax.config import KEYS, check_key

NOT_RUN = {
    r"^pip install": "changes the environment",
    r"^pytest": "is this",
    r"configs/cifar10\.py": "downloads CIFAR-10",
    r"(--workdir|report) runs/cifar10": "needs a run of that",
    r"photo": "needs the reader's photographs",
    r"configs/imagenet": "needs ImageNet, or plans for minutes",
    r"--model nfnet_f0 --weights nfnet_f0": "downloads weights",
    r"analyze --model nf_": "takes half a minute and more",
    r"sweep .*(--grid|--sample)(?!.*--dry_run)": "takes minutes",
    r"bn_wrn_10_1": "trains as long as the first command",
    r"two_processes": "trains twice as long as the first command",
    r"compile_matrix": "compiles for an hour",
    r"build_reference": "is run by test_reference.py",
    r"from timm\.data import": "needs timm",
}
"""Commands that are read, but not run here, and why."""
NOT_EXECUTED = {
    r'load_pretrained\("nfnet_f0"': "downloads weights",
    r"def sweep\(trial\)": "belongs into a config file; called with a trial below",
}
"""Examples that are compiled only, and why."""
NEEDS_COMMANDS = "digits.jaxexport"
"""In the examples that read what the commands have written."""


def excepted(text: str, reasons: dict[str, str]) -> bool:
    return any(re.search(pattern, text) for pattern in reasons)


def every_command() -> list[str]:
    """Without repetition, in the order in which a reader meets them."""
    found = [command for block in blocks("sh") for command in commands(block)]
    return list(dict.fromkeys(found))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A clone as the working directory, whose digits config trains for two steps."""
    for name in ("configs", "docs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    config = tmp_path / "configs" / "digits.py"
    text = config.read_text("utf-8")
    assert "epochs = 30.0" in text
    config.write_text(text.replace("epochs = 30.0", "epochs = 0.1"), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(module: str, *arguments: str) -> None:
    """Runs `python -m MODULE ARGUMENTS` in this process."""
    dispatch(["nfnet", module.removeprefix("nfnet_jax."), *arguments])


def execute(example: Block) -> None:
    exec(compile(example.text, example.page, "exec"), {"__name__": example.page})


EXAMPLES = [
    block for block in blocks("python") if not excepted(block.text, NOT_EXECUTED)
]


def test_quick_commands_run_as_printed(checkout, monkeypatch):
    """In one process; `scripts/colab.ipynb` runs such commands in one each."""
    monkeypatch.setattr(cli, "prepare_jax", lambda: None)
    quick = [command for command in every_command() if not excepted(command, NOT_RUN)]
    assert len(quick) >= 9
    for command in quick:
        python, option, *words = shlex.split(command, comments=True)
        assert [python, option] == ["python", "-m"]
        run(*words)
    for example in EXAMPLES:
        if NEEDS_COMMANDS in example.text:
            execute(example)
    written = ("runs/digits/result.json", "digits.png", "gains.png", "digits.jaxexport")
    for name in written:
        assert (checkout / name).stat().st_size


@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if NEEDS_COMMANDS not in example.text],
    ids=lambda example: example.page,
)
def test_examples_run(example, checkout):
    execute(example)


class Parsed(Exception):
    """Raised where a command would begin to work."""


def parse_and_stop(*args, parse=cli.parse, **kwargs):
    """Reads and checks flags as ever, and ends the command."""
    parse(*args, **kwargs)
    raise Parsed


OTHERS = [command for command in every_command() if excepted(command, NOT_RUN)]


@pytest.mark.parametrize("command", OTHERS)
def test_other_commands_are_well_formed(command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(command, comments=True)
    if words[:2] == ["pip", "install"]:
        check_installed(words[2:])
    elif words[:3] == ["python", "-m", "nfnet_jax.sweep"]:
        run(*words[2:], "--dry_run")
    elif words[:2] == ["python", "-m"]:
        monkeypatch.setattr(cli, "parse", parse_and_stop)
        with pytest.raises(Parsed):
            run(*words[2:])
    elif words[:2] == ["python", "-c"]:
        compile(words[2], command, "exec")
    elif words[0] == "python":
        ast.parse((REPOSITORY / words[1]).read_text(encoding="utf-8"))
        if "--config" in words:
            read_flags(words[2:])
    else:
        assert words == ["pytest", "-n", "2", "--dist", "loadfile"]


def check_installed(words: list[str]) -> None:
    """Extras of this package exist."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    for word in words:
        if own := re.fullmatch(r"\.\[(.*)\]", word):
            extras = project["project"]["optional-dependencies"]
            assert set(own[1].split(",")) <= extras.keys()
        else:
            assert word in (".", "-e", "-U", "timm") or word.startswith("jax[")


def read_flags(flags: list[str]):
    """The config that the training command makes of `flags`, with or without a file."""
    argv = ["train.py", *flags]
    return cli.parse(argv, "", config="optional", workdir="").config


RESULTS = re.findall(r"(?m)^\| `(--config [^`]*)`", PAGES[0].read_text("utf-8"))


@pytest.mark.parametrize(
    "line",
    [*RESULTS, *(x for block in blocks("text") for x in block.text.splitlines())],
)
def test_printed_flags_are_valid(line, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert len(RESULTS) >= 4
    assert read_flags(shlex.split(line, comments=True)).name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_in_the_text_exist(page):
    text = page.read_text(encoding="utf-8")
    for key in re.findall(r"--config\.([a-z_.]+)=", text):
        check_key(key)
    sections = "|".join({key.split(".")[0] for key in KEYS if "." in key})
    for key in re.findall(rf"`((?:{sections})\.[a-z_.]+)", text):
        if not key.endswith(("py", "json")):
            check_key(key.rstrip("."))


def test_other_examples_compile():
    for block in set(blocks("python")) - set(EXAMPLES):
        compile(block.text, block.page, "exec")


def test_the_sweep_function_returns_keys():
    (block,) = [block for block in blocks("python") if "def sweep" in block.text]
    namespace = {}
    exec(block.text, namespace)
    for key in namespace["sweep"](FixedTrial({"width": 4})):
        check_key(key)


@pytest.mark.parametrize("reasons", [NOT_RUN, NOT_EXECUTED], ids=["sh", "python"])
def test_every_exception_is_needed(reasons):
    texts = [*every_command(), *(block.text for block in blocks("python"))]
    for pattern in reasons:
        assert any(re.search(pattern, text) for text in texts), pattern


def test_code_is_fenced_and_of_a_known_kind():
    known = blocks("sh", "python", "text", "math")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        mine = [b for b in known if page == REPOSITORY / b.page]
        assert len(re.findall("^```", text, re.MULTILINE)) == 2 * len(mine)
        assert not re.search(r"^    (python|pip|--)", prose(text), re.MULTILINE)


def test_figures_are_what_their_script_draws(tmp_path):
    script = REPOSITORY / "docs" / "draw_figures.py"
    runpy.run_path(str(script))["main"]([f"--output={tmp_path}"])
    (digit, kept), (signal, kept_signal) = (
        [Image.open(folder / name).copy() for folder in (tmp_path, script.parent)]
        for name in ("digit.png", "signal.png")
    )
    assert digit.tobytes() == kept.tobytes() and signal.size == kept_signal.size


LINKING = [*PAGES, *sorted((REPOSITORY / "experiments").rglob("*.md"))]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.parent.name + page.name)
def test_links_lead_somewhere(page):
    text = prose(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), target


def test_every_page_is_listed():
    index = (REPOSITORY / "docs/README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"]({page.name})" in index
