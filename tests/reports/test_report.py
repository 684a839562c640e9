"""A report against the files of its run, and against logits computed without it."""

import base64
import functools
import io
import json
import os
import re
import shutil
import sys

import jax
import numpy as np
import pytest
from html_pages import SVG, table, texts
from PIL import Image
from sklearn.metrics import confusion_matrix

from nfnet_jax import cli, report
from nfnet_jax.analysis import open_branches
from nfnet_jax.data.load import load_dataset
from nfnet_jax.reports import measured
from nfnet_jax.reports.measured import SIGNAL_IMAGES, measure_run
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.workdir import read_config, read_json
from nfnet_jax.utils.errors import UserError
from nfnet_jax.utils.figures import DARK, LIGHT


@pytest.fixture(scope="module")
def network(trained):
    """The network, its first and its averaged parameters, normalized test images."""
    run = Experiment(read_config(trained))
    with Checkpoints(trained) as checkpoints:
        ema_params = checkpoints.restore(run.abstract_state).ema_params
    digits = load_dataset("digits")
    pixels = digits.train.images / 255.0
    images = (digits.test.images / 255.0 - pixels.mean()) / pixels.std()
    return run.model, run.state.params, ema_params, images.astype(np.float32)


def test_results_are_those_of_the_files(trained, page):
    result = read_json(f"{trained}/result.json")
    names, values = texts(page.html.iter("dt")), texts(page.html.iter("dd"))
    tiles = dict(zip(names, values, strict=True))
    accuracy = f"{100 * result['test_accuracy']:.2f} %"
    averaged = f"{100 * result['test_accuracy_ema']:.2f} %"
    assert tiles["test accuracy"] == f"{accuracy}{averaged} averaged"
    assert tiles["parameters"].startswith(f"{result['parameters']:,}")
    assert tiles["test loss"].startswith(f"{result['test_loss']:.4g}")
    facts = table(page.html, "Results") | table(page.html, "Throughput and cost")
    assert facts["updates"] == ["24"]
    assert facts["test accuracy, averaged parameters"] == [averaged]
    for name, unit, expected in (
        ("training rate", "images/s", result["images_per_second"]),
        ("training cost", "GFLOP", result["train_flops"] / 1e9),
    ):
        number, found = facts[name][0].split()
        assert found == unit and float(number) == pytest.approx(expected, rel=5e-3)
    # The network that is shown to make mistakes is the one that was scored.
    notes = texts(page.html.iter("p"))
    assert any(f"are right on {averaged} of" in note for note in notes)
    assert table(page.html, "Versions")["jax"] == [jax.__version__]


def test_curves_are_those_of_the_files(trained, page):
    with open(os.path.join(trained, "metrics.jsonl"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    described = [svg.get("aria-label") for svg in page.html.iter(f"{SVG}svg")]
    for title, name, key in (
        ("Loss", "training", "train/loss"),
        ("Loss", "test", "test/loss"),
        ("Loss", "test, averaged", "test/loss_ema"),
        ("Learning rate", "learning rate", "learning_rate"),
        ("Gradient norm", "norm", "train/grad_norm"),
    ):
        values = [row[key] for row in rows if key in row]
        (text,) = [text for text in described if text and text.startswith(f"{title}:")]
        found = re.search(rf" {name}: (\S+) at .*?, (\S+) at .*? highest (\S+)\.", text)
        found = [float(value.replace("−", "-")) for value in found.groups()]
        expected = [values[0], values[-1], max(values)]
        np.testing.assert_allclose(found, expected, rtol=5e-3)
    titles = texts(page.html.iter("figcaption"))
    assert {"Accuracy", "Clip fraction", "Variance", "Branch variance"} <= set(titles)


def test_the_confusion_matrix_and_the_mistakes(network, page):
    model, _, params, images = network
    logits = np.asarray(jax.jit(model.apply)({"params": params}, images), np.float64)
    labels = load_dataset("digits").test.labels
    guesses = logits.argmax(1)
    caption = "Images of each class (row) by the class they were taken for (column)"
    cells = table(page.html, caption)
    assert cells["class"] == list("0123456789")
    found = [[int(c.replace("·", "0")) for c in cells[name]] for name in "0123456789"]
    expected = confusion_matrix(labels, guesses, labels=range(10))
    np.testing.assert_array_equal(found, expected)

    odds = np.exp(logits - logits.max(1, keepdims=True))
    surest = (odds / odds.sum(1, keepdims=True)).max(1)
    wrong = np.flatnonzero(guesses != labels)
    order = wrong[np.argsort(-surest[wrong])][:24]
    assert len(order) == 24
    pictures = [i for i in page.html.iter("img") if "Test image" in i.get("alt")]
    shown = [int(re.search(r"Test image (\d+)", i.get("alt"))[1]) for i in pictures]
    assert shown == order.tolist()
    captions = [li for li in page.html.iter("li") if li.find("img") is not None]
    shown = zip(order.tolist(), pictures, captions, strict=True)
    for index, picture, caption in shown:
        label, guess = labels[index], guesses[index]
        assert picture.get("alt") == f"Test image {index}: {label}, taken for {guess}"
        png = picture.get("src").removeprefix("data:image/png;base64,")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        expected = load_dataset("digits").test.images[index, ..., 0]
        np.testing.assert_array_equal(pixels, expected)
        sure = f"{100 * surest[index]:.1f} % sure"
        assert texts(caption)[1:] == [f"says {guess}", f"is {label}", sure]


def test_the_signal_at_both_ends(found, network):
    """Variances after each stage, which networks of one block a stage return."""
    model, first, last, images = network
    apply = jax.jit(functools.partial(model.apply, return_stages=True))
    for signal, params in ((found.start, open_branches(first)), (found.end, last)):
        _, stages = apply({"params": params}, images[:SIGNAL_IMAGES])
        expected = [np.asarray(s, np.float64).var((0, 1, 2)).mean() for s in stages]
        np.testing.assert_allclose(signal.avg_var[1:], expected, rtol=1e-4)
    # A block adds α² = 0.04, and each stage starts again from 1.
    np.testing.assert_allclose([p.output_var for p in found.predictions], 1.04)
    assert found.step == found.planned_steps == 24


def test_the_config_and_what_differs(pair):
    changed = table(pair.html, "Keys that are not at their defaults")
    assert changed["train.steps"][:3] == ["24", "24", "unset"]
    assert changed["optim.learning_rate"][:3] == ["0.05", "0.05", "0.1"]
    assert "seed" not in changed and "updates" in changed["train.steps"][3]
    assert len(table(pair.html, "All keys")) > 80
    panels = [text for text in texts(pair.html.iter("div")) if "differ" in text]
    assert "Keys that differ between the runs: none." in panels


def test_a_run_that_has_not_ended_shows_what_there_is(pair):
    summaries = texts(pair.html.iter("li"))
    assert any("unfinished: 24 of 24 updates logged" in text for text in summaries)
    notes = texts(pair.html.iter("p"))
    assert any("holds no complete checkpoint" in note for note in notes)
    cost = table(pair.html, "Throughput and cost")
    name = "a_long_name_" * 8 + "<i>&"
    assert cost[""] == ["first", name]
    assert cost["time, compilation included"][1] == "–"
    assert cost["parameters"][0] == cost["parameters"][1]
    titles = [text for text in texts(pair.html.iter("h2")) if ":" in text]
    assert titles == [
        "Signal propagation: first",
        "Mistakes: first",
        f"Signal propagation: {name}",
    ]


def test_keys_that_differ_are_compared(trained, write, tmp_path):
    values = read_json(f"{trained}/config.json")
    # Data that is not there: the rest is shown.
    values["data"] |= {"name": f"folder:{tmp_path}/absent", "image_size": 8}
    for name, rate in (("first", 0.05), ("second", 0.2)):
        values["optim"]["learning_rate"] = rate
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(values))
    shutil.copy(os.path.join(trained, "metrics.jsonl"), tmp_path / "first")
    html = write(tmp_path / "first", tmp_path / "second").html
    differing = table(html, "Keys that differ between the runs")
    assert differing.keys() == {"key", "optim.learning_rate"}
    assert differing["optim.learning_rate"][:3] == ["0.05", "0.2", "0.1"]
    summaries = texts(html.iter("li"))
    assert sum("nothing logged yet" in text for text in summaries) == 1
    notes = texts(html.iter("p"))
    assert sum(note.startswith("Nothing is measured: ") for note in notes) == 2
    assert "Loss" in texts(html.iter("figcaption"))


def test_test_images_that_cannot_be_read_leave_the_rest(trained, tmp_path):
    for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path)
        if name.startswith("val"):
            path.write_bytes(b"")
    config = read_config(trained)
    config.data.update(name=f"folder:{tmp_path}/set", image_size=8, loader="stream")
    config.data.update(batch_size=2, workers=0)
    (note,) = measure_run(config, str(tmp_path), 1).notes
    assert note.startswith("Nothing is measured: ") and "cannot be decoded" in note


def test_it_can_be_read_by_everyone_and_loads_nothing(page, pair):
    for html in (page.html, pair.html):
        for element in html.iter():
            assert element.get("src", "data:image/png").startswith("data:image/png")
            assert element.get("href", "#").startswith("#")
            assert not any(name.startswith("on") for name in element.attrib)
        assert html.get("lang") == "en" and html.find(".//title").text
        assert all(image.get("alt") for image in html.iter("img"))
        assert list(html.iter(f"{SVG}svg"))
        for svg in html.iter(f"{SVG}svg"):
            assert svg.get("aria-hidden") or svg.get("aria-label")
        for made in html.iter("table"):
            assert made.findtext("caption")
            assert {th.get("scope") for th in made.iter("th")} == {"col", "row"}
            assert all(row[0].tag == "th" for row in made.find("tbody"))
        assert len(list(html.iter("h1"))) == 1
        assert html.find(".//main") is not None


def test_ids_are_unique_and_classes_have_rules(page, pair):
    for found in (page, pair):
        ids = [part.get("id") for part in found.html.iter() if part.get("id")]
        assert len(set(ids)) == len(ids)
        sheet = found.html.findtext(".//style")
        names = {n for e in found.html.iter() for n in e.get("class", "").split()}
        assert {n for n in names if f".{n} " not in f"{sheet} "} <= {"solid", "photo"}
        used = set(re.findall(r"var\(--(\w+)\)", found.text))
        assert used - {"c"} <= LIGHT.keys()
        for colours in (LIGHT, DARK):
            assert all(f"--{name}: {colours[name]}" in sheet for name in colours)
        assert "url(" not in sheet and "@import" not in sheet and "http" not in sheet


def test_size_and_place(page, pair):
    assert len(page.text.encode()) < 500_000 and len(pair.text.encode()) < 500_000
    assert os.listdir(page.path.parent) == ["report.html"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no work directory"]),
        (["absent"], ["'absent' holds no run", "absent/config.json"]),
        (["ru"], ["'ru' holds no run", "did you mean 'run'?"]),
        (["empty"], ["'empty' holds no run"]),
        (["run", "./run"], ["'run' is given twice"]),
        (["damaged"], ["damaged/config.json is damaged"]),
        (["run", "--output=empty"], ["--output: 'empty' is a directory"]),
        (["run", "--output=no/x.html"], ["--output: 'no/x.html'", "no directory 'no'"]),
        (["run", "--out=x.html"], ["--out"]),
    ],
)
def test_a_mistake_is_one_line(
    arguments, words, trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["report.py", *arguments])
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "run", "damaged"):
        (tmp_path / name).mkdir()
    shutil.copy(os.path.join(trained, "config.json"), "run")
    (tmp_path / "damaged" / "config.json").write_text("{")
    with pytest.raises(SystemExit) as stopped:
        cli.run(report.main)
    assert stopped.value.code == 2
    out, line = capsys.readouterr()
    assert out == "" and line.startswith("error: ") and line.count("\n") == 1
    assert all(word in line for word in words), line
    assert not list(tmp_path.rglob("*.html*"))


def test_where_it_is_written(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli, "prepare_jax", lambda: None)
    mistakes = []

    def measure(config, workdir, most):
        mistakes.append(most)
        return measured.Measured()

    monkeypatch.setattr(measured, "measure_run", measure)
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(os.path.join(trained, "config.json"), name)
    report.main(["report.py", "a"])
    report.main(["report.py", "a", "b"])
    assert capsys.readouterr().out.split() == ["a/report.html", "report.html"]
    assert mistakes == [24, 12, 12]

    def refuse(*paths):
        raise OSError(28, "No space left on device")

    pages = {path: path.read_text() for path in tmp_path.rglob("*.html*")}
    assert [path.name for path in pages] == 2 * ["report.html"]
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="cannot write report.html: No space left"):
        report.main(["report.py", "a", "b"])
    assert pages == {path: path.read_text() for path in tmp_path.rglob("*.html*")}
