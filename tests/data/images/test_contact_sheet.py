"""The picture of a training batch, from the command line."""

import numpy as np
import pytest
from PIL import Image

from nfnet_jax.config import base_config
from nfnet_jax.data import __main__ as command
from nfnet_jax.data.__main__ import preview_batch
from nfnet_jax.data.images.contact_sheet import contact_sheet
from nfnet_jax.data.sources.digits import load_digits
from nfnet_jax.utils.errors import UserError


def digits_config(**changes):
    config = base_config()
    config.data.batch_size = 16
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(
        "from nfnet_jax.config import base_config\nget_config = base_config\n"
    )
    return str(file)


def test_without_augmentation_a_preview_shows_images_of_the_set_and_their_names():
    images, captions = preview_batch(digits_config(), 5)
    split = load_digits("train", "test", None).train
    for image, caption in zip(images, captions, strict=True):
        same = np.flatnonzero((split.images == image).all((1, 2, 3)))
        assert caption in {(str(split.labels[i]),) for i in same}


def test_captions_tell_the_classes_and_their_shares():
    _, captions = preview_batch(digits_config(**{"train.cutmix": True}), 16)
    mixed = [caption for caption in captions if len(caption) == 2]
    assert len(mixed) > 8
    for caption in mixed:
        names, shares = zip(*(line.split(" ") for line in caption), strict=True)
        assert set(names) < set("0123456789")
        first, second = (int(share.rstrip("%")) for share in shares)
        assert first >= second and abs(first + second - 100) <= 1


def test_a_sheet_has_every_image_enlarged_in_its_cell():
    images = np.arange(3 * 32 * 32 * 3).reshape(3, 32, 32, 3).astype(np.uint8)
    sheet = np.asarray(contact_sheet(images, [("a",), ("b", "c"), ("d",)]))
    assert sheet.shape == (2 * (96 + 28 + 4) + 4, 2 * (96 + 4) + 4, 3)
    for i, (row, column) in enumerate([(0, 0), (0, 1), (1, 0)]):
        top, left = 4 + row * 128, 4 + column * 100
        cell = sheet[top : top + 96, left : left + 96]
        np.testing.assert_array_equal(cell[1::3, 1::3], images[i])


def test_the_command_writes_a_picture(config_file, tmp_path, capsys):
    output = str(tmp_path / "digits.png")
    command.main(["data", "--config", config_file, "--output", output])
    assert "64 of the 128 images" in capsys.readouterr().out
    with Image.open(output) as picture:
        assert picture.size == (8 * (96 + 4) + 4, 8 * (96 + 14 + 4) + 4)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("batch.jpg", "expected a name ending in .png"),
        ("absent/batch.png", "below no"),
        ("folder.png", "a directory"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(
    output, message, config_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=message):
        command.main(["data", "--config", config_file, "--output", output])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.augment.random_resized_crop": True, "data.augment.crop_padding": 1},
            "crop_padding is 1 and .*only one crop",
        ),
        ({"data.crop": "crop_resize"}, "data.crop is 'crop_resize', and"),
    ],
)
def test_values_that_do_not_fit_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        preview_batch(digits_config(**changes), 1)
