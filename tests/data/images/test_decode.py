"""Image files of every mode, and errors of damaged ones."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from data_sets import encode, noise, refusal
from PIL import Image, ImageOps, PngImagePlugin

from nfnet_jax.data.dataset import BadImage
from nfnet_jax.data.images.decode import decode_image, open_image

GREY = Image.new("L", (8, 8))
RED, CLEAR_RED, HALF_BLACK = (255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)


@pytest.fixture
def save(tmp_path):
    """save(image, name, **options) -> path"""

    def save(image, name="image.png", **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def colours(*values) -> Image.Image:
    """A row of RGBA pixels."""
    return Image.fromarray(np.array([values], np.uint8))


def test_rgb_is_read_as_it_is(save):
    found = open_image(save(Image.fromarray(noise(5, 7, 3))))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, noise(5, 7, 3))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16"])
def test_grey_of_every_mode_is_the_same_in_all_channels(save, mode):
    grey = np.array([[0, 255, 255], [255, 0, 255]], np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
        assert image.mode == mode
    else:
        image = Image.fromarray(grey).convert(mode)
    found = open_image(save(image))
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled(save, name):
    values = np.array([[0, 128, 257 * 100, 65535]], np.uint16)
    found = open_image(save(Image.fromarray(values), name))
    assert found[0, :, 0].tolist() == [0, 0, 100, 255]


def test_transparency_lies_on_white(save):
    image = colours(RED, CLEAR_RED, HALF_BLACK)
    expected = [[255, 0, 0], [255, 255, 255], [127, 127, 127]]
    assert open_image(save(image))[0].tolist() == expected
    found = open_image(save(image.convert("LA")))[0, :, 0].tolist()
    assert found == [76, 255, 127]
    found = open_image(save(image, "image.webp", lossless=True))[0].tolist()
    assert found == expected


def test_palettes_with_and_without_transparency(save):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    red, green, blue, white = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3
    assert open_image(save(image))[0].tolist() == [red, green, blue]
    assert open_image(save(image, transparency=1))[0].tolist() == [red, white, blue]
    path = save(image, transparency=bytes([255, 0, 0]))
    assert open_image(path)[0].tolist() == [red, white, white]
    path = save(image, "image.gif", transparency=1)
    assert open_image(path)[0].tolist() == [red, white, blue]


def test_one_transparent_colour_without_alpha(save):
    image = colours(RED, (0, 0, 255, 255)).convert("RGB")
    path = save(image, transparency=(255, 0, 0))
    assert open_image(path)[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_cmyk(save):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert open_image(save(image, "image.tif"))[3, 3].tolist() == [255, 0, 0]
    found = open_image(save(image, "image.jpg", quality=100))[3, 3].astype(int)
    assert np.abs(found - [255, 0, 0]).max() <= 3


def turned(orientation) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def upright(pixels, orientation):
    """Pixels turned by the EXIF standard: sides of the stored ones by orientation."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: pixels[::-1].T,
        7: pixels[::-1, ::-1].T,
        8: pixels[:, ::-1].T,
    }[orientation]


FORMATS = [
    ("PNG", {}),
    ("JPEG", {"quality": 100}),
    ("JPEG", {"quality": 100, "progressive": True}),
    ("MPO", {"quality": 100, "save_all": True, "append_images": [GREY]}),
    ("WEBP", {"lossless": True}),
    ("AVIF", {"quality": 100}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]


@pytest.mark.parametrize(("form", "options"), FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format_is_applied(form, options, orientation):
    pixels = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3) * 40
    stored = Image.fromarray(np.kron(pixels, np.ones((16, 16), np.uint8)))
    content = encode(stored.convert("RGB"), form, exif=turned(orientation), **options)
    for channels in (1, 3, 4):
        found = decode_image(content, channels)[8::16, 8::16, 0].astype(int)
        expected = upright(pixels, orientation)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 8


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


THUMBNAIL = encode(Image.new("RGB", (8, 8)), "JPEG")
BEFORE_EXIF = {
    "nothing": b"",
    "JFIF": segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\0" + bytes(5986)),
    "a JPEG": segment(0xED, b"Photoshop 3.0\0" + THUMBNAIL),
    "much else": 5 * segment(0xE3, bytes(65_000)),
    "a comment": segment(0xFE, b"\xff\xda\xff\xda"),
    "fill bytes": b"\xff\xff\xff",
    "junk": segment(0xFE, b"") + b"junk",
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
}


@pytest.mark.parametrize("between", BEFORE_EXIF)
@pytest.mark.parametrize("orientation", [1, 2, 5, 6])
def test_exif_counts_wherever_it_lies(between, orientation):
    """Pixels equal those that Pillow alone reads."""
    content = encode(noise(12, 20, 3), "JPEG")
    exif = segment(0xE1, turned(orientation).tobytes())
    content = content[:2] + BEFORE_EXIF[between] + exif + content[2:]
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape[:2] == ((20, 12) if orientation > 4 else (12, 20))
    np.testing.assert_array_equal(decode_image(content), expected)


def test_exif_behind_the_pixels_of_a_png():
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = encode(pixels)
    exif = b"eXIf" + turned(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = (len(exif) - 4).to_bytes(4) + exif + zlib.crc32(exif).to_bytes(4)
    content = content[:-12] + chunk + content[-12:]
    np.testing.assert_array_equal(decode_image(content, 1)[..., 0], upright(pixels, 6))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_xmp_may_tell_the_orientation_and_damaged_exif_leaves_the_pixels(form):
    image = noise(10, 20, 3)
    stored = decode_image(encode(image, form, quality=100))
    for exif in (b"Exif\0\0", b"Exif\0\0no Exif at all"):
        found = decode_image(encode(image, form, quality=100, exif=exif))
        np.testing.assert_array_equal(found, stored)
    if form != "PNG":
        xmp = b'<rdf:Description tiff:Orientation="6"/>'
        found = decode_image(encode(image, form, quality=100, xmp=xmp))
        np.testing.assert_array_equal(found, np.rot90(stored, -1))


def text_chunks(kind: str, size: int) -> dict:
    if kind == "iCCP":
        return {"icc_profile": bytes(size)}
    chunks = PngImagePlugin.PngInfo()
    add = chunks.add_itxt if kind == "iTXt" else chunks.add_text
    add("comment", "x" * size, zip=kind != "tEXt")
    return {"pnginfo": chunks}


@pytest.mark.parametrize("kind", ["iCCP", "tEXt", "zTXt", "iTXt"])
def test_what_a_png_says_beside_its_pixels_may_be_long(kind):
    image = noise(2, 3)
    content = encode(image, **text_chunks(kind, 3_000_000))
    np.testing.assert_array_equal(decode_image(content, 1)[..., 0], image)
    # 70 MB of the same letter are 70 kB in a file.
    if kind != "tEXt":
        content = encode(image, **text_chunks(kind, 70_000_000))
        assert len(content) < 1_000_000
        with pytest.raises(BadImage, match="too large"):
            decode_image(content)


def test_of_an_animation_the_first_frame_is_read(save):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = save(frames[0], "image.gif", save_all=True, append_images=frames[1:])
    assert open_image(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_truncated_files(tmp_path, form, share):
    content = encode(noise(40, 60, 3), form)
    (tmp_path / "photo").write_bytes(content[: int(share * len(content))])
    line = refusal(open_image, tmp_path / "photo")
    assert line.startswith(f"{tmp_path / 'photo'} ")
    assert "cannot be read as an image" in line or "is not an image" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "x.png is empty"),
        (bytes(100), "x.png is not an image"),
        (b"<svg></svg>", "is not an image"),
        # Pillow would call another program for it.
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not an image"),
        (b"P6 0 0 255\n", "x.png"),
        (encode(np.zeros((2, 2), np.float32), "TIFF"), "floating-point"),
    ],
)
def test_files_that_are_not_images(tmp_path, content, words):
    (tmp_path / "x.png").write_bytes(content)
    assert words in refusal(open_image, tmp_path / "x.png")


def test_bombs(save, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    line = refusal(open_image, save(Image.new("L", (50, 50))))
    assert "image.png is too large" in line and "2,000 pixels" in line


def test_paths_that_are_not_files(tmp_path):
    line = refusal(open_image, tmp_path / "foto.png")
    assert line == f"{tmp_path}/foto.png cannot be read: No such file or directory"
    assert "is a directory" in refusal(open_image, tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe.png is not a file" in refusal(open_image, tmp_path / "pipe.png")
    assert "is not a file" in refusal(open_image, "/dev/zero")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_have_the_pixels_that_pillow_reads(save, mode, subsampling, progressive):
    image = Image.fromarray(noise(37, 51, 3)).convert(mode)
    options = {"progressive": progressive}
    if mode == "RGB":
        options["subsampling"] = subsampling
    path = save(image, "image.jpg", **options)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(open_image(path), expected)


def tiff(values, bits, photometric) -> bytes:
    """A row of grey pixels, as TIFF 6.0 lays them out: one strip, little-endian."""
    data = np.asarray(values, {8: "u1", 16: "<u2"}[bits]).tobytes()
    tags = {256: len(values), 257: 1, 258: bits, 259: 1, 262: photometric}
    tags |= {273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_white_may_be_zero_in_a_tiff(bits, photometric):
    shares = np.array([0.0, 0.25, 0.75, 1.0])
    content = tiff(np.round(shares * (2**bits - 1)), bits, photometric)
    expected = np.round(255 * (shares if photometric else 1 - shares))
    found = decode_image(content, channels=1)[0, :, 0]
    np.testing.assert_allclose(found, expected, atol=1)


def test_transparent_16_bit_grey_is_composited_on_white():
    content = encode(np.array([[0, 30_000, 65_535]], np.uint16), transparency=0)
    grey = round(30_000 / 257)
    assert decode_image(content, channels=1)[0, :, 0].tolist() == [255, grey, 255]
    assert decode_image(content, channels=4)[0, :, 3].tolist() == [0, 255, 255]
