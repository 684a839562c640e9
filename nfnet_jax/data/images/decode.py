"""Decoding image files of any size and mode; errors are one line."""

import io
import os
import stat

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, PngImagePlugin

from nfnet_jax.data.dataset import BadImage
from nfnet_jax.utils.errors import UserError

# Pillow reads more formats, but some run other programs (EPS calls Ghostscript).
FORMATS = "AVIF BMP GIF JPEG JPEG2000 MPO PNG PPM TGA TIFF WEBP".split()
_SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
# TIFF tags: bits per sample, and whether 0 is white (0) or black (1).
_BITS, _PHOTOMETRIC = 258, 262
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for a number of channels."""
_ORIENTATION = 0x0112
# JPEG markers: Exif and XMP are APP1 segments, SOS begins the pixels.
_APP1, _SOS = 0xE1, 0xDA
# Pillow refuses a colour profile of 2 MB as a bomb; 64 MiB is limit enough.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def open_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image file as people see it: uint8 RGB [H, W, 3].

    EXIF rotation is applied, transparency composited on white, 16-bit grey scaled to 8
    bits; an animation gives its first frame. Colour profiles are not applied.

    Raises:
      UserError: no such file, or not a whole image of a known format.
    """
    try:
        return decode_image(read_file(path))
    except BadImage as error:
        raise UserError(f"{os.fspath(path)} {error}") from error


def read_file(path: str | os.PathLike) -> bytes:
    """Reads the undecoded content of an image file; raises BadImage if it cannot be
    read, or is a directory, a pipe or a device."""
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
    """Opener of files that does not wait for a writer where the path is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def decode_image(encoded: bytes, channels: int = 3) -> np.ndarray:
    """Decodes an image file's content by the rules of `open_image`: uint8 [H, W, C].

    `channels`: 1 for grey, 3 for RGB, 4 for RGB and opacity.

    Raises:
      BadImage: not a whole image of a known format.
    """
    if not encoded:
        raise BadImage("is empty, expected an image")
    try:
        if channels == 3 and encoded[:3] == b"\xff\xd8\xff":
            pixels = _decode_plain_jpeg(encoded)
            if pixels is not None:
                return pixels
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with Image.open(io.BytesIO(encoded), formats=formats) as image:
            ends = _black_and_white(image)
            pixels = np.asarray(_convert(_upright(image), MODES[channels], ends))
    except Image.UnidentifiedImageError as error:
        raise BadImage(
            f"is not an image, expected one of {', '.join(FORMATS)}"
        ) from error
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS  # type: ignore[operator]
        raise BadImage(
            f"is too large ({error}), expected at most {limit:,} pixels"
        ) from error
    # Decoders raise arbitrary exceptions on damaged files.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"cannot be read as an image: {reason}") from error
    if not pixels.size:
        raise BadImage(f"has no pixels: its size is {pixels.shape[:2]}")
    return pixels.reshape(*pixels.shape[:2], channels)


def _decode_plain_jpeg(encoded: bytes) -> np.ndarray | None:
    """Pixels of most JPEGs, equal to Pillow's in two thirds of its time, else None."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if colours == "CMYK" or height * width > Image.MAX_IMAGE_PIXELS:
            return None
        if _may_be_turned(encoded):
            with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as image:
                if image.getexif().get(_ORIENTATION, 1) != 1:
                    return None
        return simplejpeg.decode_jpeg(encoded)
    # Pillow decides whether the file is broken.
    except ValueError:
        return None


def _may_be_turned(jpeg: bytes) -> bool:
    """True if an APP1 segment, or something that is no segment, precedes the pixels."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and at + 4 <= len(jpeg):
        marker = jpeg[at + 1]
        if marker == _SOS:
            return False
        # Other markers have no length.
        if marker == _APP1 or not (0xC0 <= marker < 0xD0 or 0xDA < marker < 0xFF):
            return True
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return True


def _upright(image: Image.Image) -> Image.Image:
    # A PNG may have its Exif after the pixels.
    image.load()
    try:
        image.getexif()
    # Damaged Exif does not spoil the pixels.
    except Exception:
        return image
    return ImageOps.exif_transpose(image)


def _black_and_white(image: Image.Image) -> tuple[int, int]:
    """Grey values of black and of white in an image with more than 8 bits a pixel."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0]
    most = 2**bits - 1 if bits in (12, 16) else 0xFFFF
    return (most, 0) if tags.get(_PHOTOMETRIC) == 0 else (0, most)


def _as_eight_bits(image: Image.Image, black: int, white: int) -> Image.Image:
    """Scales grey values to 8 bits, with opacity if one value is transparent."""
    values, most = np.asarray(image).astype(np.int64), max(black, white)
    if values.min() < 0 or values.max() > most:
        found = f"{values.min()} to {values.max()}"
        raise ValueError(f"grey values {found}, expected 0 to {most}")
    levels = ((abs(values - black) * 255 + most // 2) // most).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is None:
        return Image.fromarray(levels)
    opacity = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([levels, opacity], -1))


def _convert(image: Image.Image, mode: str, ends: tuple[int, int]) -> Image.Image:
    """The image in `mode`, transparency composited on white unless `mode` keeps it."""
    if image.mode in _SIXTEEN_BITS:
        image = _as_eight_bits(image, *ends)
    if image.mode == "F":
        raise ValueError("floating-point pixels, expected whole numbers")
    if image.has_transparency_data and mode != "RGBA":
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert(mode)
    return image.convert(mode)
