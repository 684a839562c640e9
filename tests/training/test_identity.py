"""A run and its data are known by names and contents, not by order and place."""

import itertools
import json
import shutil
import unicodedata

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_run import tiny_config

from nfnet_jax import evaluate, predict, report
from nfnet_jax.data.class_names import imagenet_synsets, relabel
from nfnet_jax.data.load import load_dataset
from nfnet_jax.inference.predict import Predictor, with_class_names
from nfnet_jax.models.registry import create_model
from nfnet_jax.reports.measured import measure_run
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.loop import train
from nfnet_jax.training.pretrained import Pretrained, merge_pretrained
from nfnet_jax.training.state import init_variables
from nfnet_jax.training.trained import load_run, load_weights, score_checkpoint
from nfnet_jax.training.workdir import read_config
from nfnet_jax.utils import runtime
from nfnet_jax.utils.errors import UserError
from nfnet_jax.weights import load as published

NAMES = ("ant", "bee", "cat")
ORDER = ("cat", "ant", "bee")
STEPS = 20


def run_config(folder, **changes):
    options = {
        "data.name": f"folder:{folder}",
        "data.image_size": 8,
        "data.batch_size": 12,
        "train.steps": STEPS,
        "checkpoint.every_steps": STEPS // 2,
    }
    return tiny_config(**options | changes)


def draw(folder, names, count=10):
    """Images of a colour for each class."""
    random = np.random.RandomState(0)
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.randint(0, 100, (8, 8, 3)).astype(np.uint8)
            pixels[..., label % 3] += 150
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`set`, of three classes, and `run`, which has them in another order."""
    root = tmp_path_factory.mktemp("identity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFNET_JAX_CACHE", str(root / "cache"))
        draw(root / "set", NAMES)
        name = f"folder:{root}/set"
        dataset = relabel(load_dataset(name, image_size=8), ORDER)
        train(run_config(root / "set"), str(root / "run"), dataset=dataset)
    return root


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A copy of them, the run stopped half-way in `half`, to be changed."""
    monkeypatch.setenv("NFNET_JAX_CACHE", str(place / "cache"))
    monkeypatch.setattr(runtime, "enable_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)
    for name in ("set", "run"):
        shutil.copytree(place / name, tmp_path / name)
    edit("run/config.json", lambda c: c["data"].update(name="folder:set"))
    shutil.copytree("run", "half")
    (tmp_path / "half/result.json").unlink()
    shutil.rmtree(f"half/checkpoints/{STEPS}")
    return tmp_path


def edit(path, change):
    with open(path, encoding="utf-8") as file:
        values = json.load(file)
    change(values)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(values, file)


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def check_same_network(workdir, other):
    """Bit for bit."""
    one, two = load_run(workdir), load_run(other)
    assert one.step == two.step == STEPS
    jax.tree.map(np.testing.assert_array_equal, one.variables, two.variables)


def main(command, *arguments):
    command.main([command.__name__, *arguments])


# --- Classes in another order -------------------------------------------------------


def test_evaluation_report_and_prediction_agree_with_the_names(here, capsys):
    result = read("run/result.json")
    assert result["test_accuracy"] > 0.8
    main(evaluate, "--workdir=run")
    scores = json.loads(capsys.readouterr().out)
    assert scores["accuracy"] == result["test_accuracy"]
    assert scores["loss"] == pytest.approx(result["test_loss"], rel=1e-6)

    measured = measure_run(read_config("run"), "run", 4)
    assert measured.class_names == ORDER
    assert measured.tested.accuracy == scores["accuracy_ema"]

    main(predict, "--workdir=run", "--json", "--top=1", "set")
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = [s["classes"][0]["name"] in s["image"].split("/") for s in said]
    assert np.mean(right) > 0.8

    spec = load_run("run").data_spec
    images, targets, _ = Experiment(read_config("run"), given_spec=spec).first_batch
    colours = np.asarray(images.mean((1, 2))).argmax(-1)
    named = [NAMES.index(ORDER[label]) for label in np.asarray(targets.argmax(-1))]
    assert colours.tolist() == named


def test_the_columns_of_a_classifier_follow_the_names():
    """Logits without a class, of which the network has two, stay where they are."""
    model = create_model("nf_wrn_10_1", 5)
    images = np.random.RandomState(0).rand(4, 8, 8, 3).astype("float32")
    fresh, given = (init_variables(model, seed, (8, 8, 3))[0] for seed in (0, 1))
    given["head"]["classifier"]["bias"] = np.arange(5.0)
    apply = jax.jit(model.apply)
    before = np.asarray(apply({"params": given}, images))
    for names in itertools.permutations(NAMES):
        weights = Pretrained(given, (0,), (1,), class_names=ORDER)
        params, _, line = merge_pretrained(weights, fresh, {}, "w", names)
        logits = np.asarray(apply({"params": params}, images))
        for place, name in enumerate(names):
            np.testing.assert_array_equal(
                logits[:, place], before[:, ORDER.index(name)]
            )
        np.testing.assert_array_equal(logits[:, 3:], before[:, 3:])
        assert "the classifier is theirs" in line


def test_weights_of_a_run_and_of_imagenet_know_their_classes(here, monkeypatch):
    config = run_config("set", **{"model.weights": "run"})
    assert load_weights(config).class_names == ORDER
    config.model.name, config.model.weights = "nf_resnet50", "somewhere"
    for classes, names in ((1000, imagenet_synsets()), (10, ())):
        loaded = create_model("nf_resnet50", classes), {}
        monkeypatch.setattr(published, "load_pretrained", lambda *a, _l=loaded, **k: _l)
        assert load_weights(config).class_names == names


@pytest.mark.parametrize("own", [ORDER, imagenet_synsets()[:3]])
def test_labels_of_a_file_never_exchange_classes(own):
    shown = own
    if own[0].startswith("n0"):
        shown = tuple(f"class {i} ({name})" for i, name in enumerate(own))
    predictor = Predictor(None, {}, None, shown)
    for names in itertools.permutations(own):
        assert with_class_names(predictor, names, "f").class_names == shown
        spelt = tuple(unicodedata.normalize("NFD", name) for name in names)
        assert with_class_names(predictor, spelt, "f").class_names == shown
        louder = tuple(name.upper() for name in names)
        if names == own:
            assert with_class_names(predictor, louder, "f").class_names == louder
        elif louder != names:
            with pytest.raises(UserError, match="which is class"):
                with_class_names(predictor, louder, "f")
    others = ("dog", "eel", "fox")
    assert with_class_names(predictor, others, "f").class_names == others
    for names in itertools.permutations((*own[:2], "dog")):
        if names[:2] == own[:2]:
            assert with_class_names(predictor, names, "f").class_names == names
        else:
            with pytest.raises(UserError, match=r"f, line \d is .*, which is class \d"):
                with_class_names(predictor, names, "f")


# --- Other classes ------------------------------------------------------------------


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("workdir", ["run", "half"])
def test_a_class_more_or_of_another_name_is_refused(here, workdir):
    draw(here / "more", [*NAMES, "dog"])
    draw(here / "renamed", ["Cat", *NAMES[:2]])
    before = files(here)
    words = {
        "more": "'dog' is new",
        "renamed": "'Cat' is new, 'cat' is missing; did you mean 'cat'",
    }
    for folder, word in words.items():
        for act in (train, score_checkpoint):
            with pytest.raises(UserError, match=word) as error:
                act(run_config(folder), workdir)
            assert "\n" not in str(error.value) and "delete" not in str(error.value)
    assert files(here) == before


def test_some_of_the_classes_are_evaluated_by_name(here, capsys):
    whole = score_checkpoint(run_config("set"), "run")
    assert not capsys.readouterr().err
    by_name = {}
    for name in NAMES:
        draw(here / name, NAMES)
        shutil.rmtree(here / name / name)
        by_name[name] = score_checkpoint(run_config(name), "run")
        line = f"folder:{name} has 2 of the run's 3 classes, not '{name}'\n"
        assert capsys.readouterr().err == line
        with pytest.raises(UserError, match=f"'{name}' is missing"):
            train(run_config(name), "half")
    # Each class is as often in the test split as the others, and in two of three sets.
    mean = np.mean([scores["loss"] for scores in by_name.values()])
    assert mean == pytest.approx(whole["loss"], rel=1e-5)


def test_a_network_with_other_options_is_not_scored(here):
    for change in ({"model.activation": "silu"}, {"model.alpha": 0.5}):
        with pytest.raises(UserError, match="holds a network whose model"):
            score_checkpoint(run_config("set", **change), "run")


# --- Another place ------------------------------------------------------------------


def move(here):
    (here / "set").rename(here / "moved")
    return "moved"


def link(here):
    (here / "set").rename(here / "moved")
    (here / "linked").symlink_to("moved")
    return "linked"


@pytest.mark.parametrize("elsewhere", [move, link])
def test_a_run_goes_on_where_its_images_have_gone(elsewhere, here):
    name = elsewhere(here)
    train(run_config(name), "half")
    assert read("half/config.json")["data"]["name"] == f"folder:{name}"
    assert read("half/data.json")["class_names"] == list(ORDER)
    check_same_network("run", "half")


def test_images_that_have_moved_are_evaluated(here, capsys):
    main(evaluate, "--workdir=run")
    before = capsys.readouterr().out
    name = move(here)
    main(evaluate, "--workdir=run", f"--data_dir={name}")
    assert capsys.readouterr().out == before


@pytest.mark.parametrize("workdir", ["run", "half"])
def test_other_images_are_refused(here, workdir):
    shutil.copytree("set", "more")
    shutil.copy("set/ant/0.png", "more/ant/10.png")
    shutil.copytree("set", "changed")
    Image.new("RGB", (8, 8)).save("changed/ant/0.png")
    before = files(here)
    for name in ("more", "changed"):
        with pytest.raises(UserError, match=r"holds a run of other data than folder:"):
            train(run_config(name), workdir)
    assert files(here) == before


def test_a_run_of_an_earlier_version_goes_on_in_its_place(here):
    edit("half/data.json", lambda facts: facts.pop("contents"))
    shutil.copytree("set", "copy")
    with pytest.raises(UserError, match="data.name is 'folder:set' there"):
        train(run_config("copy"), "half")
    train(run_config("set/"), "half")
    assert read("half/data.json")["contents"] == read("run/data.json")["contents"]


@pytest.mark.parametrize("command", [evaluate, report])
@pytest.mark.parametrize("name", ["digits", "arrays", "tfds:little"])
def test_a_data_dir_is_never_ignored(here, command, name):
    edit("run/config.json", lambda c: c["data"].update(name=name))
    run = "run" if command is report else "--workdir=run"
    with pytest.raises(UserError, match="^--data_dir is 'set', "):
        main(command, run, "--data_dir=set")


def test_a_data_dir_that_is_not_there_is_told(here):
    told = r"^--data_dir is 'sett', no such directory; did you mean 'set'\?$"
    with pytest.raises(UserError, match=told):
        main(evaluate, "--workdir=run", "--data_dir=sett")
    assert not (here / "sett").exists()
