"""The picture of a training batch, from the command line."""

import os

import numpy as np
import pytest
from data_sets import noise, refusal
from PIL import Image

from nfnet_jax.config import base_config
from nfnet_jax.data.__main__ import contact_sheet, main, preview_batch
from nfnet_jax.data.load import load_dataset

CONFIG = "from nfnet_jax.config import base_config\nget_config = base_config\n"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the command with an output file, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(CONFIG)
    return lambda output: main(["data", "--config=config.py", f"--output={output}"])


def test_without_augmentation_a_preview_shows_images_of_the_set_and_their_names():
    images, captions = preview_batch(base_config(), 5)
    split = load_dataset("digits").train
    for image, caption in zip(images, captions, strict=True):
        same = np.flatnonzero((split.images == image).all((1, 2, 3)))
        assert caption in {(str(split.labels[i]),) for i in same}


def test_captions_tell_the_classes_and_their_shares():
    config = base_config()
    config.train.cutmix = True
    _, captions = preview_batch(config, 16)
    mixed = [caption for caption in captions if len(caption) == 2]
    assert len(mixed) > 8
    for caption in mixed:
        names, shares = zip(*(line.split(" ") for line in caption), strict=True)
        assert set(names) < set("0123456789")
        first, second = (int(share.rstrip("%")) for share in shares)
        assert first >= second and abs(first + second - 100) <= 1


def test_a_sheet_has_every_image_enlarged_in_its_cell():
    images = noise(3, 32, 32, 3)
    sheet = np.asarray(contact_sheet(images, [("a",), ("b", "c"), ("d",)]))
    assert sheet.shape == (2 * (96 + 28 + 4) + 4, 2 * (96 + 4) + 4, 3)
    for i, (row, column) in enumerate([(0, 0), (0, 1), (1, 0)]):
        top, left = 4 + row * 128, 4 + column * 100
        cell = sheet[top : top + 96, left : left + 96]
        np.testing.assert_array_equal(cell[1::3, 1::3], images[i])


def test_the_command_writes_a_picture(command, capsys):
    command("digits.png")
    assert "64 of the 128 images" in capsys.readouterr().out
    with Image.open("digits.png") as picture:
        assert picture.size == (8 * (96 + 4) + 4, 8 * (96 + 14 + 4) + 4)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("batch.jpg", "expected a name ending in .png"),
        ("absent/batch.png", "below no"),
        ("folder.png", "a directory"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(output, message, command):
    os.mkdir("folder.png")
    assert message in refusal(command, output)
