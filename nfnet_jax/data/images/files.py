"""Image files: any size, any mode, whatever is wrong with them in one line."""

import contextlib
import io
import os
import stat
from collections import Counter
from collections.abc import Iterable

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, PngImagePlugin

from nfnet_jax.data.dataset import BadImage
from nfnet_jax.data.sources.listing import (
    describe,
    found_instead,
    images_below,
    say_once,
)
from nfnet_jax.utils.errors import UserError, nearest

# Pillow knows more, but some of those run other programs (EPS calls Ghostscript).
_FORMATS = "AVIF BMP GIF JPEG JPEG2000 MPO PNG PPM TGA TIFF WEBP".split()
_SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
# Tags of a TIFF: bits of a sample, and whether 0 is white (0) or black (1).
_BITS, _PHOTOMETRIC = 258, 262
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112
# Markers of a JPEG: Exif and XMP are APP1 segments, SOS begins the pixels.
_APP1, _SOS = 0xE1, 0xDA
# A colour profile of 2 MB is no bomb, as Pillow has it; one above 64 MiB stays refused.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def open_image(path: str | os.PathLike) -> np.ndarray:
    """The pixels of an image file as people see them: uint8 RGB [H, W, 3].

    EXIF rotation is applied, transparency composited on white, 16-bit grey scaled to 8;
    of an animation it is the first frame. Colour profiles are not applied.

    Raises:
      UserError: no such file, or not a whole image of a known format.
    """
    try:
        return decode_image(read_file(path))
    except BadImage as error:
        raise UserError(f"{os.fspath(path)} {error}") from error


def read_file(path: str | os.PathLike) -> bytes:
    """The content of an image file, which is not decoded.

    Raises:
      BadImage: it cannot be read, or is a directory, a pipe or a device.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadImage("is not a file, expected an image")
            return file.read()
    except IsADirectoryError as error:
        raise BadImage("is a directory, expected an image") from error
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror}") from error


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a pipe too without waiting for somebody to write into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def decode_image(encoded: bytes, channels: int = 3) -> np.ndarray:
    """The pixels of an image file's content, as `open_image` says: uint8 [H, W, C].

    `channels`: 1 for grey, 3 for RGB, 4 for RGB and opacity.

    Raises:
      BadImage: it is not a whole image of a known format.
    """
    if not encoded:
        raise BadImage("is empty, expected an image")
    try:
        if channels == 3 and encoded[:3] == b"\xff\xd8\xff":
            pixels = _decode_plain_jpeg(encoded)
            if pixels is not None:
                return pixels
        Image.init()
        formats = [name for name in _FORMATS if name in Image.OPEN]
        with Image.open(io.BytesIO(encoded), formats=formats) as image:
            ends = _black_and_white(image)
            pixels = np.asarray(_as_mode(_upright(image), MODES[channels], ends))
    except Image.UnidentifiedImageError as error:
        raise BadImage(
            f"is not an image, expected one of {', '.join(_FORMATS)}"
        ) from error
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS  # type: ignore[operator]
        raise BadImage(
            f"is too large ({error}), expected at most {limit:,} pixels"
        ) from error
    # Decoders raise whatever they come upon.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"cannot be read as an image: {reason}") from error
    if not pixels.size:
        raise BadImage(f"has no pixels: its size is {pixels.shape[:2]}")
    return pixels.reshape(*pixels.shape[:2], channels)


def list_images(
    paths: Iterable[str | os.PathLike],
) -> tuple[list[str], list[str]]:
    """Files as they are given, in the place of a directory the images below it.

    Returns:
      Their paths, and a line for each path that leads to none or not to all.
    """
    found: list[str] = []
    wrong: list[str] = []
    passed_over: Counter[str] = Counter()
    for path in (os.fspath(path) for path in paths):
        if os.path.isdir(path):
            below = images_below(path)
            found += below.images
            wrong += below.unreadable
            passed_over += below.passed_over
            if not below.images and not below.unreadable:
                wrong.append(
                    f"{path} holds no images, expected files such as .jpg or .png in"
                    f" it{found_instead(below.passed_over)}"
                )
        elif os.path.exists(path):
            found.append(path)
        else:
            wrong.append(_absent(path))
    if passed_over:
        say_once(f"passed over {describe(passed_over)}")
    return found, wrong


def _absent(path: str) -> str:
    folder, name = os.path.split(path)
    folder = folder or "."
    beside: list[str] = []
    with contextlib.suppress(OSError):
        beside = os.listdir(folder)
    where = "" if os.path.isdir(folder) else f" (there is no directory {folder!r})"
    return f"{path!r} does not exist{where}, expected an image{nearest(name, beside)}"


def _decode_plain_jpeg(encoded: bytes) -> np.ndarray | None:
    """Pillow's pixels of most JPEGs in two thirds of its time; None for the others."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if colours == "CMYK" or height * width > Image.MAX_IMAGE_PIXELS:
            return None
        if _may_be_turned(encoded):
            with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as image:
                if image.getexif().get(_ORIENTATION, 1) != 1:
                    return None
        return simplejpeg.decode_jpeg(encoded)
    # Pillow then finds out whether it is broken.
    except ValueError:
        return None


def _may_be_turned(jpeg: bytes) -> bool:
    """Whether there is an APP1 segment before the pixels, or what is no segment."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and at + 4 <= len(jpeg):
        marker = jpeg[at + 1]
        if marker == _SOS:
            return False
        # The others have no length.
        if marker == _APP1 or not (0xC0 <= marker < 0xD0 or 0xDA < marker < 0xFF):
            return True
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return True


def _upright(image: Image.Image) -> Image.Image:
    # A PNG may have its Exif behind the pixels.
    image.load()
    try:
        image.getexif()
    # Damaged Exif says nothing of how to turn whole pixels.
    except Exception:
        return image
    return ImageOps.exif_transpose(image)


def _black_and_white(image: Image.Image) -> tuple[int, int]:
    """The grey values of black and of white, where a pixel has more than 8 bits."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0]
    most = 2**bits - 1 if bits in (12, 16) else 0xFFFF
    return (most, 0) if tags.get(_PHOTOMETRIC) == 0 else (0, most)


def _as_eight_bits(image: Image.Image, black: int, white: int) -> Image.Image:
    """Grey values scaled to 8 bits, with opacity where one of them is transparent."""
    values, most = np.asarray(image).astype(np.int64), max(black, white)
    if values.min() < 0 or values.max() > most:
        found = f"{values.min()} to {values.max()}"
        raise ValueError(f"grey values {found}, expected 0 to {most}")
    levels = ((abs(values - black) * 255 + most // 2) // most).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is None:
        return Image.fromarray(levels)
    opacity = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([levels, opacity], -1), "LA")


def _as_mode(image: Image.Image, mode: str, ends: tuple[int, int]) -> Image.Image:
    if image.mode in _SIXTEEN_BITS:
        image = _as_eight_bits(image, *ends)
    if image.mode == "F":
        raise ValueError("floating-point pixels, expected whole numbers")
    if image.has_transparency_data and mode != "RGBA":
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert(mode)
    return image.convert(mode)
