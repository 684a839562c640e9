r"""Shows training images as the network sees them.

    python -m nfnet_jax.data --config configs/cifar10.py
    python -m nfnet_jax.data --config configs/cifar10.py --output mixed.png \
        --config.train.mixup=0.2 --config.train.cutmix=True

Writes a picture of the first training batch of a run, after all augmentation, with the
classes of every image and their shares below it.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nfnet_jax import cli
from nfnet_jax.config.kinds import Text
from nfnet_jax.utils.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

MOST_IMAGES = 64
_LEAST_SIDE = 96
_MARGIN = 4
_LINE = 14


def main(argv: list[str]) -> None:
    """Writes at most `MOST_IMAGES` images of the batch to --output."""
    flags = cli.parse(
        argv, __doc__, config="needed", output=Text("batch.png", "PNG file to write")
    )
    config, output = flags.config, flags.output
    _check_output(output)
    cli.prepare_jax()
    images, captions = preview_batch(config, MOST_IMAGES)
    contact_sheet(images, captions).save(output)
    print(f"{output}: {len(images)} of the {config.data.batch_size} images of step 1")


def preview_batch(
    config: "ConfigDict", most: int
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """The first images of the first batch of a run, as its network sees them.

    Returns:
      Images uint8 [N, H, W, C], their normalization undone; for each the names of its
      classes, largest share first, with the shares where there are two.

    Raises:
      UserError: data that cannot be had, or values that do not fit it.
    """
    from nfnet_jax.training.experiment import Experiment

    experiment = Experiment(config)
    dataset = experiment.dataset
    images, targets, _ = experiment.first_batch
    if dataset.image_shape[-1] not in (1, 3):
        raise UserError(
            f"{config.data.name} has images of {dataset.image_shape[-1]} channels, "
            "expected 1 or 3 to show them"
        )

    def caption(target: np.ndarray) -> tuple[str, ...]:
        order = np.argsort(-target, kind="stable")[:2]
        names = [dataset.class_names[i] for i in order if target[i] >= 0.005]
        if len(names) == 1:
            return (names[0],)
        return tuple(f"{n} {target[i]:.0%}" for n, i in zip(names, order, strict=True))

    pixels = np.asarray(images[:most], np.float32) * dataset.std + dataset.mean
    pixels = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    return pixels, [caption(target) for target in np.asarray(targets[:most])]


def _check_output(output: str) -> None:
    folder = os.path.dirname(output) or "."
    if not output.endswith(".png"):
        raise UserError(f"--output is {output!r}, expected a name ending in .png")
    if os.path.isdir(output) or not os.path.isdir(folder):
        found = "a directory" if os.path.isdir(output) else f"below no {folder!r}"
        raise UserError(f"--output: {output!r} is {found}, expected a file to write")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--output: {folder!r} is not writable")


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


if __name__ == "__main__":
    cli.run(main)
