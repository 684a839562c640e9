"""Search of directories through links, each once; files left out are counted."""

import os
import random

import pytest
from PIL import Image

from nfnet_jax.data.images.decode import FORMATS
from nfnet_jax.data.images.listing import (
    EXTENSIONS,
    describe,
    images_below,
    list_images,
)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def below(directory) -> list[str]:
    found = images_below(directory)
    assert found.unreadable == []
    return [os.path.relpath(path, directory) for path in found.images]


def test_links_are_followed(tmp_path):
    touch(tmp_path / "a" / "1.png")
    touch(tmp_path / "store" / "2019" / "2.png")
    (tmp_path / "a" / "0").symlink_to(tmp_path / "store")
    (tmp_path / "c").symlink_to(tmp_path / "store" / "2019")
    (tmp_path / "a" / "3.png").symlink_to(tmp_path / "a" / "1.png")
    assert below(tmp_path / "a") == ["0/2019/2.png", "1.png", "3.png"]
    assert below(tmp_path / "c") == ["2.png"]


def tangle(root, seed: int) -> None:
    """Directories with a file each, and links to any of them."""
    draw = random.Random(seed)
    folders = [root]
    for i in range(12):
        folders.append(draw.choice(folders) / f"d{i}")
        touch(folders[-1] / "x.png")
    for i in range(10):
        (draw.choice(folders) / f"{draw.choice('az')}{i}").symlink_to(
            draw.choice(folders)
        )


def reachable(start: str) -> set[str]:
    """Real paths of the files that a walk from `start` meets, not through a parent."""
    above = {os.path.realpath(start)}
    while (parent := os.path.dirname(min(above, key=len))) not in above:
        above.add(parent)
    met: set[str] = set()
    waiting = [os.path.realpath(start)]
    while waiting:
        folder = waiting.pop()
        if folder in met or folder in above and folder != os.path.realpath(start):
            continue
        met.add(folder)
        paths = [os.path.realpath(f"{folder}/{name}") for name in os.listdir(folder)]
        waiting += [path for path in paths if os.path.isdir(path)]
    return {f"{folder}/x.png" for folder in met}


@pytest.mark.parametrize("seed", range(20))
def test_of_a_tangle_every_file_is_found_once(tmp_path, seed):
    tangle(tmp_path / "set", seed)
    for start in ("set", "set/d0"):
        found = images_below(tmp_path / start).images
        if not (tmp_path / start).is_dir():
            continue
        real = [os.path.realpath(path) for path in found]
        assert len(set(real)) == len(real)
        expected = reachable(str(tmp_path / start))
        assert set(real) == {path for path in expected if os.path.exists(path)}
        # Files with a path of their own are not found under another.
        own = {p for p in real if p.startswith(f"{tmp_path / start}/")}
        assert own <= set(found)


def test_every_extension_of_the_formats_that_are_read_is_taken():
    Image.init()
    known = {
        extension
        for extension, form in Image.registered_extensions().items()
        if form in FORMATS
    }
    # Floating-point pixels, which are refused.
    assert known - {".pfm"} <= set(EXTENSIONS)


def test_what_is_passed_over_is_counted(tmp_path):
    for name in "a.png b.JPE c.Pjpeg d.heic e.HEIC f .g.png .h/i.png j.txt".split():
        touch(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    found = images_below(tmp_path)
    names = [os.path.basename(path) for path in found.images]
    # Broken links are named when they are read.
    assert names == ["a.png", "b.JPE", "c.Pjpeg", "gone.png", "loop.png"]
    assert found.passed_over == {
        ".heic": 2,
        ".txt": 1,
        "without extension": 1,
        "hidden": 2,
        "pipe or device": 1,
        "link to nowhere": 1,
    }
    assert describe(found.passed_over).startswith("2 hidden, 2 .heic, 1 ")


def test_of_many_kinds_the_most_frequent_are_told(tmp_path):
    for i in range(30):
        touch(tmp_path / f"x.{i}")
    touch(tmp_path / "y.7")
    line = describe(images_below(tmp_path).passed_over)
    assert line.startswith("2 .7, ") and line.endswith(", 22 more")


def test_a_directory_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "1.png")
    touch(tmp_path / "b" / "2.png")
    scan = os.scandir

    def refuse(path):
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = images_below(tmp_path)
    assert found.images == [f"{tmp_path}/b/2.png"]
    assert found.unreadable == [f"cannot read {tmp_path}/a: Permission denied"]


def test_directories_are_listed_sorted_and_whole(tmp_path):
    hidden = [".hidden.png", ".thumbnails/a.png"]
    shown = "b.png a/c.JPG a/b/x.webp a/notes.txt a.jpeg".split()
    for name in hidden + shown:
        touch(tmp_path / name)
    found, wrong = list_images([tmp_path])
    names = [os.path.relpath(path, tmp_path) for path in found]
    assert names == ["a.jpeg", "a/b/x.webp", "a/c.JPG", "b.png"]
    # Files are taken as they are given, whatever they are called.
    chosen = [str(tmp_path / name) for name in ("b.png", "a/notes.txt")]
    assert list_images([*chosen, tmp_path]) == ([*chosen, *found], [])
    assert wrong == []


def test_what_cannot_be_listed_is_named_and_leaves_the_others(tmp_path, caplog):
    for name in ("photo.png", "cats/notes.txt", "cats/a.heic"):
        touch(tmp_path / name)
    absent = [tmp_path / "foto.png", tmp_path / "cat", tmp_path / "dogs" / "a"]
    found, wrong = list_images([*absent, tmp_path / "cats", tmp_path / "photo.png"])
    assert found == [f"{tmp_path}/photo.png"]
    for line, words in zip(
        wrong,
        (
            "'photo.png'?",
            "'cats'?",
            f"there is no directory '{tmp_path}/dogs'",
            "cats holds no images, expected files such as .jpg or .png in it; found"
            " 1 .heic, 1 .txt",
        ),
        strict=True,
    ):
        assert words in line and "\n" not in line
    assert caplog.messages == ["passed over 1 .heic, 1 .txt"]
