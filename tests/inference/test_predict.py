"""Predictions on image files, held to logits computed without any of this."""

import functools
import io
import json
import os
import shutil
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturbed import perturbed
from PIL import Image

from nfnet_jax import cli, create_model, predict
from nfnet_jax.config import base_config
from nfnet_jax.data.images.bicubic import bicubic
from nfnet_jax.data.images.preprocess import Preprocessing
from nfnet_jax.data.load import load_dataset
from nfnet_jax.inference import predict as prediction
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.data_spec import write_data_spec
from nfnet_jax.training.experiment import Experiment
from nfnet_jax.training.workdir import create_workdir
from nfnet_jax.utils import runtime
from nfnet_jax.weights import haiku
from nfnet_jax.weights import load as pretrained

IMAGES = 37
"""More than a batch, and no multiple of one."""


def digits_config(name: str):
    config = base_config()
    config.model.name = name
    config.data.batch_size = 32
    config.train.steps = 20
    config.log.tensorboard = False
    config.optim.agc.exclude = ("classifier",)
    config.optim.weight_decay_exclude = ("bias$",)
    return config


def write_run(config, workdir: str) -> None:
    """Writes the files of a run with random parameters and statistics."""
    run = Experiment(config)
    params = perturbed(run.model, run.data_spec.image_shape)
    state = run.state.replace(
        ema_params=jax.tree.map(jnp.asarray, params),
        batch_stats=jax.tree.map(lambda leaf: leaf + 0.5, run.state.batch_stats),
    )
    create_workdir(workdir, config)
    write_data_spec(workdir, run.data_spec)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(state)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Images of the test split, as an array and as a folder of PNG files."""
    pixels = load_dataset("digits").test.images[:IMAGES]
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(folder / f"{i:03}.png")
    return SimpleNamespace(pixels=pixels, folder=str(folder))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("trained") / "run")
    write_run(digits_config("nf_wrn_10_1"), workdir)
    return workdir


@pytest.fixture(scope="module", params=["nf_wrn_10_1", "bn_wrn_10_1"])
def run(request, trained, digits, tmp_path_factory):
    """A work directory, its config, and images."""
    config, workdir = digits_config(request.param), trained
    if request.param == "bn_wrn_10_1":
        workdir = str(tmp_path_factory.mktemp("bn") / "run")
        write_run(config, workdir)
    return SimpleNamespace(
        workdir=workdir, images=digits.folder, config=config, pixels=digits.pixels
    )


@pytest.fixture
def run_predict(monkeypatch, capsys):
    """run_predict(*arguments) -> exit code, standard output, lines on stderr."""
    monkeypatch.setattr(runtime, "enable_compilation_cache", lambda: None)

    def run_predict(*arguments) -> tuple[int | None, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
        code = None
        try:
            cli.run(predict.main)
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run_predict


@pytest.fixture
def main(run_predict):
    """main(*arguments) -> the output of a command without errors."""

    def main(*arguments) -> str:
        code, out, err = run_predict(*arguments)
        assert (code, err) == (None, [])
        return out

    return main


def expected_probabilities(run) -> np.ndarray:
    """From the restored training state and the pixels in memory."""
    setup = Experiment(run.config)
    with Checkpoints(run.workdir) as checkpoints:
        state = checkpoints.restore(setup.abstract_state)
    train_pixels = load_dataset("digits").train.images / 255.0
    images = (run.pixels / 255.0 - train_pixels.mean()) / train_pixels.std()
    variables = {"params": state.ema_params, "batch_stats": state.batch_stats}
    logits = jax.jit(setup.model.apply)(variables, images.astype(np.float32))
    odds = np.exp(np.asarray(logits, np.float64))
    return odds / odds.sum(axis=1, keepdims=True)


def test_a_run_predicts_its_own_test_images(run, main):
    expected = expected_probabilities(run)
    out = main(f"--workdir={run.workdir}", "--json", "--top=10", run.images)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["image"] for line in lines] == [
        f"{run.images}/{i:03}.png" for i in range(IMAGES)
    ]
    found = np.zeros_like(expected)
    for row, line in zip(found, lines, strict=True):
        for guess in line["classes"]:
            row[guess["class"]] = guess["probability"]
            assert guess["name"] == str(guess["class"])
        values = [guess["probability"] for guess in line["classes"]]
        assert values == sorted(values, reverse=True)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


def test_a_batch_is_padded_and_compiled_once(trained, digits, monkeypatch):
    predictor = prediction.run_predictor(trained)
    paths = [f"{digits.folder}/{i:03}.png" for i in range(6)]
    together = list(prediction.predict_images(predictor, paths))
    monkeypatch.setattr(prediction, "BATCH_SIZE", 4)
    traced = []

    class Model:
        def apply(self, variables, images, train):
            traced.append(images.shape)
            return predictor.model.apply(variables, images, train=train)

    fake = prediction.Predictor(
        Model(), predictor.variables, predictor.preprocess, predictor.class_names
    )
    batched = list(prediction.predict_images(fake, paths))
    assert traced == [(4, 8, 8, 1)]
    assert [found.path for found in batched] == paths
    for one, other in zip(batched, together, strict=True):
        np.testing.assert_allclose(
            one.probabilities, other.probabilities, rtol=1e-4, atol=1e-6
        )


@pytest.fixture(scope="module")
def bfloat16_run(trained, tmp_path_factory):
    """A run in bfloat16, whose parameters are float32 all the same."""
    workdir = str(tmp_path_factory.mktemp("bfloat16") / "run")
    shutil.copytree(trained, workdir)
    config = digits_config("nf_wrn_10_1")
    config.train.dtype = "bfloat16"
    create_workdir(workdir, config)
    return workdir


def blocks(out: str) -> dict[str, list[str]]:
    """The lines under each file."""
    found = [block.splitlines() for block in out.rstrip("\n").split("\n\n")]
    return {block[0]: [" ".join(line.split()) for line in block[1:]] for block in found}


def save_modes(folder) -> list[str]:
    """The same upright image in every mode, and one stored lying on its side."""
    grey = np.kron(load_dataset("digits").test.images[3, ..., 0], np.ones((3, 3)))
    image = Image.fromarray(grey.astype(np.uint8))
    paths = []
    for mode in ("L", "LA", "P", "RGB", "RGBA"):
        image.convert(mode).save(folder / f"{mode}.png")
        paths.append(f"{folder}/{mode}.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    image.save(folder / "P.gif")
    image.convert("CMYK").save(folder / "CMYK.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(folder / "lying.png", exif=exif)
    return paths + [f"{folder}/{n}" for n in ("deep.png", "P.gif", "lying.png")]


def test_modes_sizes_and_bfloat16(bfloat16_run, tmp_path, main):
    predictor = prediction.run_predictor(bfloat16_run)
    assert predictor.dtype == "bfloat16"
    paths = save_modes(tmp_path)
    Image.new("RGB", (300, 31), "navy").save(tmp_path / "wide.jpg")
    out = main(f"{tmp_path}/wide.jpg", "--workdir", bfloat16_run, "--top=3", *paths)
    found = blocks(out)
    assert list(found) == [f"{tmp_path}/wide.jpg", *paths]
    first = found[paths[0]]
    assert len(first) == 3
    for line in first:
        share, name = line.split()
        assert share.endswith("%") and 0 <= float(share[:-1]) <= 100
        assert name in "0123456789"
    for path in paths:
        assert found[path] == first, path
    assert found[f"{tmp_path}/wide.jpg"] != first


def test_a_conversion_that_is_not_exact_changes_little(bfloat16_run, tmp_path):
    save_modes(tmp_path)
    predictor = prediction.run_predictor(bfloat16_run)
    paths = [f"{tmp_path}/{name}" for name in ("L.png", "CMYK.tif")]
    grey, cmyk = prediction.predict_images(predictor, paths)
    np.testing.assert_allclose(cmyk.probabilities, grey.probabilities, atol=0.05)


def test_labels_replace_names(bfloat16_run, tmp_path, main):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    names = [f"digit {i}" for i in range(10)]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    flags = (f"--workdir={bfloat16_run}", f"--labels={tmp_path}/labels.txt")
    out = main(*flags, "--json", str(tmp_path / "x.png"))
    for guess in json.loads(out)["classes"]:
        assert guess["name"] == f"digit {guess['class']}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cut.png"], ["cut.png cannot be read as an image"]),
        (["text.png"], ["text.png is not an image", "JPEG"]),
        (["x.png", "--labels=three.txt"], ["three.txt", "3 names", "10"]),
    ],
)
def test_mistakes_with_a_run_are_one_line(
    arguments, words, bfloat16_run, run_predict, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("x.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:45])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    code, out, (line,) = run_predict(f"--workdir={bfloat16_run}", *arguments)
    assert (code, out) == (2, "") and line.startswith("error: ")
    assert all(word in line for word in words), line


class Brightness:
    """A network that tells classes by how bright an image is; NaN above `limit`."""

    limit = np.inf

    def apply(self, variables, images, train):
        brightness = images.mean((1, 2, 3))[:, None]
        logits = np.arange(10, dtype=np.float32)[None] * brightness
        return jax.numpy.where(brightness > self.limit, np.nan, logits)


@pytest.fixture
def by_brightness(run_predict, monkeypatch):
    """The command `run_predict` with `Brightness` as its network."""
    names = tuple("0123456789")
    preprocess = Preprocessing(8, "training", (0.5,), (0.25,))
    predictor = prediction.Predictor(Brightness(), {}, preprocess, names)
    monkeypatch.setattr(prediction, "run_predictor", lambda workdir: predictor)
    return lambda *arguments: run_predict("--workdir=run", *arguments)


def spoil(kind: str, path) -> None:
    """Makes a file that cannot be read as an image."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("nowhere")
    else:
        contents = {"cut": b"\x89PNG\r\n\x1a\n\0\0", "text": b"text", "empty": b""}
        path.write_bytes(contents[kind])


BAD = ("cut", "text", "empty", "pipe", "link")


@pytest.mark.parametrize("places", [(0,), (9,), (3, 4, 5, 6, 7, 8), (0, 2, 4, 6, 8)])
@pytest.mark.parametrize("json_lines", [False, True])
def test_every_readable_image_is_answered(
    by_brightness, tmp_path, monkeypatch, places, json_lines
):
    monkeypatch.setattr(prediction, "BATCH_SIZE", 4)
    flags = ["--json"] if json_lines else []
    paths = [tmp_path / f"{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        pixels = np.random.RandomState(i).randint(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    code, out, err = by_brightness(*flags, *paths)
    assert (code, err) == (None, [])
    separator = "\n" if json_lines else "\n\n"
    answers = out.rstrip("\n").split(separator)
    for i, place in enumerate(places):
        spoil(BAD[i % len(BAD)], paths[place])
    code, out, err = by_brightness(*flags, *paths)
    assert code == 2
    expected = [answer for i, answer in enumerate(answers) if i not in places]
    assert out.rstrip("\n").split(separator) == expected
    assert len(err) == len(places)
    assert all(line.startswith("error: ") for line in err)
    # In any order: a link that leads nowhere is named before anything is read.
    for place in places:
        assert sum(f"{paths[place]}" in line for line in err) == 1


@pytest.mark.parametrize("kinds", [BAD[:1], BAD])
def test_without_an_image_there_is_no_answer(by_brightness, tmp_path, kinds):
    paths = [tmp_path / f"{kind}.png" for kind in kinds]
    for kind, path in zip(kinds, paths, strict=True):
        spoil(kind, path)
    code, out, err = by_brightness(*paths)
    assert (code, out, len(err)) == (2, "", len(paths))
    # In a directory, a pipe is passed over.
    code, out, err = by_brightness(tmp_path)
    assert (code, out) == (2, "") and len(err) >= len(set(kinds) - {"pipe"})


def test_a_file_that_vanishes_is_named(by_brightness, tmp_path, monkeypatch):
    for i in range(3):
        Image.new("L", (8, 8)).save(tmp_path / f"{i}.png")
    load = prediction.run_predictor

    def vanish(workdir):
        os.remove(tmp_path / "1.png")
        return load(workdir)

    monkeypatch.setattr(prediction, "run_predictor", vanish)
    code, out, err = by_brightness(tmp_path, "--json")
    assert code == 2
    answered = [json.loads(line)["image"] for line in out.splitlines()]
    assert answered == [f"{tmp_path}/0.png", f"{tmp_path}/2.png"]
    assert err == [f"error: {tmp_path}/1.png cannot be read: No such file or directory"]


def test_outputs_that_are_not_finite_are_named(by_brightness, tmp_path, monkeypatch):
    for name, grey in (("a", 10), ("b", 250), ("c", 20)):
        Image.new("L", (8, 8), grey).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(Brightness, "limit", 0.0)
    code, out, (line,) = by_brightness(tmp_path)
    assert code == 2 and list(blocks(out)) == [f"{tmp_path}/{n}.png" for n in "ac"]
    assert f"{tmp_path}/b.png: the network's outputs are not finite" in line


NAMES = (
    b"caf\xc3\xa9.png",
    b"caf\xe9.png",
    "\u732b \U0001f408.png".encode(),
    b"a\nb.png",
)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_terminal_lacks(by_brightness, tmp_path, monkeypatch, encoding):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    (tmp_path / "names").mkdir()
    for name in NAMES:
        shutil.copy(tmp_path / "x.png", os.fsencode(tmp_path / "names") + b"/" + name)
    (tmp_path / "labels.txt").write_text("\n".join("\u732b" * 10), encoding="utf-8")
    labels = f"--labels={tmp_path}/labels.txt"
    for flags in ([], ["--json"]):
        with monkeypatch.context() as patch:
            stdout = io.TextIOWrapper(io.BytesIO(), encoding)
            patch.setattr(sys, "stdout", stdout)
            code, _, err = by_brightness(labels, *flags, tmp_path / "names")
        assert (code, err) == (None, [])
        lines = stdout.buffer.getvalue().decode(encoding).splitlines()
        if flags:
            found = [json.loads(line) for line in lines]
            names = [os.fsencode(os.path.basename(f["image"])) for f in found]
            assert sorted(names) == sorted(NAMES)
            assert all(f["classes"][0]["name"] == "\u732b" for f in found)
        else:
            assert len(lines) == len(NAMES) * 7
            assert sum("names/" in line for line in lines) == len(NAMES)


def test_published_weights(tmp_path, monkeypatch, main):
    """A small NF-ResNet-50 from a file in the published naming."""
    small = {"width_multiplier": 0.125, "depths": (1, 2, 1, 1)}
    model = create_model("nf_resnet50", 1000, gamma="published", **small)
    params = perturbed(model, (64, 64, 3))
    arrays = {
        f"{module}:{name}": array
        for module, own in haiku.to_haiku(params, model).items()
        for name, array in own.items()
    }
    np.savez(tmp_path / "weights.npz", **arrays)
    load = functools.partial(pretrained.load_pretrained, **small)
    monkeypatch.setattr(pretrained, "load_pretrained", load)

    pixels = np.random.RandomState(0).randint(0, 256, (270, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    weights = f"--weights={tmp_path}/weights.npz"
    out = main("--model=nf_resnet50", weights, "--json", f"{tmp_path}/x.png")
    found = json.loads(out)["classes"]

    # 224 / 256 of 270 are 236: rows 17 to 253, columns 82 to 318.
    square = bicubic(pixels[17:253, 82:318], 224, 224) / 255
    image = (square - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    logits = jax.jit(model.apply)({"params": params}, image[None].astype(np.float32))
    expected = np.asarray(jax.nn.softmax(logits[0]))
    best = np.argsort(-expected)[:5]
    assert [guess["class"] for guess in found] == best.tolist()
    np.testing.assert_allclose(
        [guess["probability"] for guess in found], expected[best], rtol=1e-3
    )
    assert all(f"class {g['class']} (n" in g["name"] for g in found)


def test_a_reader_that_stops_is_no_error(monkeypatch):
    """The case of `python -m nfnet_jax.predict ... | head`."""

    def main(argv):
        raise BrokenPipeError

    with open("/dev/null", "w") as out, pytest.raises(SystemExit) as stopped:
        monkeypatch.setattr(sys, "stdout", out)
        cli.run(main)
    assert stopped.value.code == 141
