"""Image files: any size, any mode, whatever is wrong with them in one line."""

import io
import os
import stat
from collections.abc import Iterable

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from nfnet_jax.data.source import BadImage
from nfnet_jax.errors import UserError, nearest

EXTENSIONS = (
    ".avif .bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tga .tif .tiff "
    ".webp"
).split()
"""Of the files that are taken for images, in lower case; others are passed over."""

# Pillow knows more, but some of those run other programs (EPS calls Ghostscript).
_FORMATS = "AVIF BMP GIF JPEG JPEG2000 MPO PNG PPM TGA TIFF WEBP".split()
_SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112


def open_image(path: str | os.PathLike) -> np.ndarray:
    """The pixels of an image file as people see them: uint8 RGB [H, W, 3].

    EXIF rotation is applied, transparency composited on white, 16-bit grey scaled to 8;
    of an animation it is the first frame. Colour profiles are not applied.

    Raises:
      UserError: no such file, or not a whole image of a known format.
    """
    path = os.fspath(path)
    _check_readable(path)
    try:
        with open(path, "rb") as file:
            return decode_image(file.read())
    except BadImage as error:
        raise UserError(f"{path} {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


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
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(_as_mode(upright, MODES[channels]))
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


def _decode_plain_jpeg(encoded: bytes) -> np.ndarray | None:
    """Pillow's pixels of most JPEGs in two thirds of its time; None for the others."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if colours == "CMYK" or height * width > Image.MAX_IMAGE_PIXELS:
            return None
        if b"Exif\0" in encoded[:4096]:
            with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as image:
                if image.getexif().get(_ORIENTATION, 1) != 1:
                    return None
        return simplejpeg.decode_jpeg(encoded)
    # Pillow then finds out whether it is broken.
    except ValueError:
        return None


def list_images(paths: Iterable[str | os.PathLike]) -> list[str]:
    """Files as they are given, in the place of a directory its `images_below`.

    Raises:
      UserError: no such file or directory, or a directory without images.
    """
    found: list[str] = []
    for path in (os.fspath(path) for path in paths):
        if os.path.isdir(path):
            below = images_below(path)
            if not below:
                raise UserError(
                    f"{path} holds no images, expected files such as .jpg or .png in it"
                )
            found += below
        else:
            _check_present(path)
            found.append(path)
    return found


def images_below(directory: str | os.PathLike) -> list[str]:
    """Paths of the files at any depth that have one of `EXTENSIONS`, sorted.

    Hidden files and directories are passed over.

    Raises:
      UserError: a directory that cannot be read.
    """

    def unreadable(error: OSError):
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error

    found = []
    for folder, directories, names in os.walk(os.fspath(directory), onerror=unreadable):
        directories[:] = [name for name in directories if not name.startswith(".")]
        found += [
            os.path.join(folder, name)
            for name in names
            if not name.startswith(".")
            and os.path.splitext(name)[1].lower() in EXTENSIONS
        ]
    return sorted(found)


def _check_present(path: str) -> None:
    if os.path.exists(path):
        return
    folder, name = os.path.split(path)
    folder = folder or "."
    beside = os.listdir(folder) if os.path.isdir(folder) else []
    where = "" if os.path.isdir(folder) else f" (there is no directory {folder!r})"
    raise UserError(
        f"{path!r} does not exist{where}, expected an image{nearest(name, beside)}"
    )


def _check_readable(path: str) -> None:
    _check_present(path)
    try:
        status = os.stat(path)
        # A pipe would be waited for, a directory told as a missing right.
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a file"
            raise UserError(f"{path} is {what}, expected an image")
        if not status.st_size:
            raise UserError(f"{path} is empty, expected an image")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            found = f"{values.min()} to {values.max()}"
            raise ValueError(f"grey values {found}, expected 0 to 65535")
        eight = ((values + 128) // 257).astype(np.uint8)
        return Image.fromarray(eight).convert(mode)
    if image.mode == "F":
        raise ValueError("floating-point pixels, expected whole numbers")
    if image.has_transparency_data and mode != "RGBA":
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert(mode)
    return image.convert(mode)
