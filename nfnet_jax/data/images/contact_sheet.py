"""Contact sheet: a picture of a batch, its images with captions in rows."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LEAST_SIDE = 96
_MARGIN = 4
_LINE = 14


def contact_sheet(images: np.ndarray, captions: Sequence[Sequence[str]]) -> Image.Image:
    """Lays out images uint8 [N, H, W, C] in about a square, each above its caption.

    C is 1 or 3. Small images are enlarged, every pixel a square.
    """
    count, height, width, channels = images.shape
    zoom = max(1, -(-_LEAST_SIDE // width))
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    lines = max(map(len, captions))
    cell_width = zoom * width + _MARGIN
    cell_height = zoom * height + lines * _LINE + _MARGIN
    size = (columns * cell_width + _MARGIN, rows * cell_height + _MARGIN)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left = _MARGIN + i % columns * cell_width
        top = _MARGIN + i // columns * cell_height
        pixels = np.repeat(np.repeat(pixels, zoom, axis=0), zoom, axis=1)
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        sheet.paste(image, (left, top))
        for number, line in enumerate(caption):
            text = _shorten(line, zoom * width, font)
            pen.text((left, top + zoom * height + number * _LINE), text, "black", font)
    return sheet


def _shorten(
    text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
