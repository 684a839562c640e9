"""Twenty broken files among good ones: each is named, none stops a run."""

import contextlib
import io
import re

import jax
import numpy as np
import pytest
from jpeg_set import jpeg
from PIL import Image

from nfnet_jax.config import base_config
from nfnet_jax.data.load import load_dataset
from nfnet_jax.data.loading import evaluation_batches, training_batches
from nfnet_jax.training.parallel import device_mesh
from nfnet_jax.utils.errors import UserError

PICTURE = jpeg(40, 50, seed=0)


def encode(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def bomb():
    """A PNG header that promises 60,000 x 60,000 pixels."""
    content = bytearray(encode(Image.new("L", (8, 8)), "PNG"))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(content)


def floats():
    return encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")


PNG = encode(Image.open(io.BytesIO(PICTURE)), "PNG")
BROKEN = {
    **{f"cut{i}.jpg": PICTURE[: len(PICTURE) * i // 8] for i in range(1, 8)},
    **{f"cut{i}.png": PNG[: len(PNG) * i // 4] for i in range(1, 4)},
    "empty.jpg": b"",
    "empty.png": b"",
    "text.jpg": b"not an image at all",
    "page.png": b"<!DOCTYPE html><html></html>",
    "zeros.jpg": bytes(2000),
    "movie.gif": b"GIF89a" + bytes(40),
    "bomb.png": bomb(),
    "floats.tif": floats(),
    "marker.jpg": PICTURE[:3],
    "lost.jpg": None,
}
GREY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
UNUSUAL = {
    "cmyk.jpg": encode(Image.new("CMYK", (9, 9), (0, 255, 255, 0)), "JPEG"),
    "deep.png": encode(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"),
    "moving.gif": encode(
        GREY, "GIF", save_all=True, append_images=[Image.new("L", (8, 8), 255)]
    ),
    "palette.png": encode(GREY.convert("P"), "PNG"),
    "clear.png": encode(Image.new("RGBA", (7, 7), (9, 9, 9, 0)), "PNG"),
    "grey.jpg": encode(GREY, "JPEG"),
}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Class `some` has 20 broken files, 6 unusual and 14 ordinary ones."""
    monkeypatch.setenv("NFNET_JAX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "pictures"
    files = BROKEN | UNUSUAL | {f"good{i}.jpg": jpeg(20, 30, i) for i in range(14)}
    for part in ("train", "val"):
        for name in ("other", "some"):
            (root / part / name).mkdir(parents=True)
            (root / part / name / "plain.jpg").write_bytes(PICTURE)
    for name, content in files.items():
        path = root / "train" / "some" / name
        if content is None:
            path.symlink_to(tmp_path / "nowhere")
        else:
            path.write_bytes(content)
    return root


def batches_of(split, config):
    return training_batches(
        split, config.data, device_mesh(), seed=0, per_example=1, steps=9
    )


def named(caplog) -> list[str]:
    """Base names of the files that were reported, in the order of the reports."""
    found = [re.match(r"skipped .*/(\S+): \S", m) for m in caplog.messages]
    return [match[1] for match in found if match]


def test_twenty_are_broken():
    assert len(BROKEN) == 20


@pytest.mark.parametrize("again", [False, True])
def test_in_memory_all_are_named_and_left_out(pictures, caplog, again):
    def load():
        return load_dataset(f"folder:{pictures}", image_size=8, max_bad_fraction=0.6)

    dataset = load()
    if again:
        caplog.clear()
        dataset = load()
    assert sorted(named(caplog)) == sorted(BROKEN)
    assert len(dataset.train) == 1 + 1 + len(UNUSUAL) + 14
    assert len(dataset.test) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_all_are_named_once_and_skipped(pictures, caplog, workers):
    config = base_config()
    config.data.batch_size = 14
    config.data.workers, config.data.max_bad_fraction = workers, 0.6
    dataset = load_dataset(f"folder:{pictures}", image_size=8, loader="stream")
    train = batches_of(dataset.train, config)
    with contextlib.closing(train.iterate(0)) as host_batches:
        batches = jax.device_get(list(host_batches))
    assert sorted(named(caplog)) == sorted(BROKEN)
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert set(labels) == {0, 1}
    assert images.any(axis=(1, 2, 3)).all()


def test_evaluated_all_are_named_once_and_counted_out(pictures, caplog):
    config = base_config()
    config.data.eval_batch_size = 14
    config.data.workers, config.data.max_bad_fraction = 0, 0.6
    flipped = load_dataset(
        f"folder:{pictures}",
        image_size=8,
        loader="stream",
        train_split="val",
        eval_split="train",
    )
    test = evaluation_batches(flipped.test, config.data, device_mesh())
    with contextlib.closing(test.iterate(0)) as host_batches:
        labels = np.concatenate(
            [labels for _, labels in jax.device_get(list(host_batches))]
        )
    assert sorted(named(caplog)) == sorted(BROKEN)
    assert np.sum(labels >= 0) == 1 + 1 + len(UNUSUAL) + 14


@pytest.mark.parametrize("loader", ["memory", "stream"])
def test_too_many_stop_the_run_with_a_list(pictures, loader):
    config = base_config()
    config.data.batch_size, config.data.workers = 42, 0
    with pytest.raises(UserError) as error:
        dataset = load_dataset(f"folder:{pictures}", image_size=8, loader=loader)
        batches = batches_of(dataset.train, config)
        with contextlib.closing(batches.iterate(0)) as host_batches:
            list(host_batches)
    message = str(error.value)
    assert "\n" not in message and "data.max_bad_fraction (0.01)" in message
    listed = re.findall(r"/some/(\S+) \(", message)
    assert set(listed) <= BROKEN.keys()
    assert len(listed) == (20 if loader == "memory" else 1)


def test_unusual_files_have_the_right_pixels(pictures):
    dataset = load_dataset(f"folder:{pictures}", image_size=8, max_bad_fraction=0.6)
    means = dataset.train.images.mean(axis=(1, 2)).round().tolist()
    assert [254, 0, 0] in means or [255, 0, 0] in means  # cyan-free: red
    assert [156, 156, 156] in means  # 40,000 of 65,535
    assert [255, 255, 255] in means  # nothing on white
    assert means.count([32, 32, 32]) >= 2  # first frame and palette, not the white
