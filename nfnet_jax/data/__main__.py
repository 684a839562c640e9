r"""Shows training images as the network sees them.

    python -m nfnet_jax.data --config configs/cifar10.py
    python -m nfnet_jax.data --config configs/cifar10.py --output mixed.png \
        --config.train.mixup=0.2 --config.train.cutmix=True

Writes a picture of the first training batch of a run, after all augmentation, with the
classes of every image and their shares below it.
"""

import os

from nfnet_jax import cli
from nfnet_jax.config.kinds import Text
from nfnet_jax.utils.errors import UserError

MOST_IMAGES = 64


def main(argv: list[str]) -> None:
    """Writes at most `MOST_IMAGES` images of the batch to --output."""
    flags = cli.parse(
        argv, __doc__, config="needed", output=Text("batch.png", "PNG file to write")
    )
    config, output = flags.config, flags.output
    _check_output(output)
    from nfnet_jax.data.images.contact_sheet import contact_sheet
    from nfnet_jax.training.preview import preview_batch

    cli.prepare_jax()
    images, captions = preview_batch(config, MOST_IMAGES)
    contact_sheet(images, captions).save(output)
    print(f"{output}: {len(images)} of the {config.data.batch_size} images of step 1")


def _check_output(output: str) -> None:
    folder = os.path.dirname(output) or "."
    if not output.endswith(".png"):
        raise UserError(f"--output is {output!r}, expected a name ending in .png")
    if os.path.isdir(output) or not os.path.isdir(folder):
        found = "a directory" if os.path.isdir(output) else f"below no {folder!r}"
        raise UserError(f"--output: {output!r} is {found}, expected a file to write")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--output: {folder!r} is not writable")


if __name__ == "__main__":
    cli.run(main)
