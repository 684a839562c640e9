"""Folder of images that is a data set."""

import pathlib

import numpy as np
from PIL import Image


def save_images(folder: pathlib.Path, *, classes: int, images: int) -> None:
    """Writes `images` PNG files of noise, 8x8, to each directory "0", "1", …"""
    random = np.random.default_rng(0)
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for i in range(images):
            pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{i}.png")
