"""Predictions on image files, held to logits computed without any of this."""

import functools
import json
import shutil
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from nfnet_jax import cache, cli, create_model, predict
from nfnet_jax.config import base_config
from nfnet_jax.data.dataset import load_dataset
from nfnet_jax.data.preprocess import bicubic
from nfnet_jax.interop import haiku, pretrained
from nfnet_jax.training import prediction
from nfnet_jax.training.checkpoint import Checkpoints
from nfnet_jax.training.facts import write_data_facts
from nfnet_jax.training.loop import train
from nfnet_jax.training.setup import set_up
from nfnet_jax.training.workdir import create_workdir

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
    """What training leaves, with other parameters and statistics than at the start."""
    random = np.random.RandomState(0)

    def noisy(leaf):
        return leaf * (1 + 0.5 * random.rand(*leaf.shape).astype("float32"))

    run = set_up(config)
    state = run.state.replace(
        ema_params=jax.tree.map(noisy, run.state.params),
        batch_stats=jax.tree.map(noisy, run.state.batch_stats),
    )
    create_workdir(workdir, config)
    write_data_facts(workdir, run.facts)
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
    train(digits_config("nf_wrn_10_1"), workdir)
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
def main(monkeypatch, capsys):
    """main(*arguments) -> what the command prints."""
    monkeypatch.setattr(cache, "enable_compilation_cache", lambda: None)

    def main(*arguments: str) -> str:
        predict.main(["predict.py", *arguments])
        return capsys.readouterr().out

    return main


def expected_probabilities(run) -> np.ndarray:
    """From the restored training state and the pixels in memory."""
    setup = set_up(run.config)
    with Checkpoints(run.workdir) as checkpoints:
        state = checkpoints.restore(setup.state)
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
    together = list(prediction.predict(predictor, paths))
    monkeypatch.setattr(prediction, "BATCH_SIZE", 4)
    traced = []

    class Model:
        def apply(self, variables, images, train):
            traced.append(images.shape)
            return predictor.model.apply(variables, images, train=train)

    fake = prediction.Predictor(
        Model(), predictor.variables, predictor.preprocess, predictor.class_names
    )
    batched = list(prediction.predict(fake, paths))
    assert traced == [(4, 8, 8, 1)]
    assert [found.path for found in batched] == paths
    for one, other in zip(batched, together, strict=True):
        np.testing.assert_allclose(
            one.probabilities, other.probabilities, rtol=1e-4, atol=1e-6
        )


@pytest.fixture(scope="module")
def bfloat16_run(trained, tmp_path_factory):
    """As if it had been trained in bfloat16: parameters are float32 all the same."""
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
    grey, cmyk = prediction.predict(predictor, paths)
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
def test_what_is_wrong_with_a_run_is_one_line(
    arguments, words, bfloat16_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cache, "enable_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("x.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:45])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    argv = ["predict.py", f"--workdir={bfloat16_run}", *arguments]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stopped:
        cli.run(predict.main)
    assert stopped.value.code == 2
    out, line = capsys.readouterr()
    assert out == "" and line.startswith("error: ") and line.count("\n") == 1
    assert all(word in line for word in words), line


def test_weights_that_diverged_are_told(bfloat16_run, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    predictor = prediction.run_predictor(bfloat16_run)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, predictor.variables)
    broken = prediction.Predictor(
        predictor.model, broken, predictor.preprocess, predictor.class_names
    )
    with pytest.raises(prediction.UserError, match="x.png: .* not finite"):
        list(prediction.predict(broken, [str(tmp_path / "x.png")]))


def test_published_weights(tmp_path, monkeypatch, main):
    """A small NF-ResNet-50 from a file in the published naming."""
    small = {"width_multiplier": 0.125, "depths": (1, 2, 1, 1)}
    model = create_model("nf_resnet50", 1000, gamma="published", **small)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3)))
    random = np.random.RandomState(0)
    params = jax.tree.map(
        lambda leaf: 0.3 * random.standard_normal(leaf.shape).astype("float32"),
        shapes["params"],
    )
    arrays = {
        f"{module}:{name}": array
        for module, own in haiku.to_haiku(params, model).items()
        for name, array in own.items()
    }
    np.savez(tmp_path / "weights.npz", **arrays)
    load = functools.partial(pretrained.load_pretrained, **small)
    monkeypatch.setattr(pretrained, "load_pretrained", load)

    pixels = random.randint(0, 256, (270, 400, 3), dtype=np.uint8)
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
    """As in `python -m nfnet_jax.predict ... | head`."""

    def main(argv):
        raise BrokenPipeError

    with open("/dev/null", "w") as out, pytest.raises(SystemExit) as stopped:
        monkeypatch.setattr(sys, "stdout", out)
        cli.run(main)
    assert stopped.value.code == 141
