"""Names what images show, by a run of yours or by published weights.

    python -m nfnet_jax.predict --workdir runs/cifar10 photo.jpg more_photos/
    python -m nfnet_jax.predict --model nfnet_f0 --weights nfnet_f0 photo.jpg

Prints the most probable classes of every image. One that cannot be read is named on
stderr and leaves the others theirs; the exit code is then 2.
"""

import re
import sys

from nfnet_jax import cli
from nfnet_jax.utils.errors import UserError, one_line
from nfnet_jax.utils.strict_json import dumps


def main(argv: list[str]) -> None:
    """Prints the most probable classes of every image, as they become ready."""
    flags, paths = cli.parse_flags_and_arguments(
        argv,
        about=__doc__,
        arguments="IMAGE_OR_DIRECTORY ...",
        switches={"json": "one JSON object for each image, on a line"},
        workdir="of a run of nfnet_jax.train",
        model="name of a published network, with --weights",
        weights="of --model: a file, or a published name",
        labels="text file, the name of a class a line",
        top="how many classes to print (default: 5)",
    )
    top = _check(flags, paths)
    from nfnet_jax.data.class_names import read_class_names
    from nfnet_jax.data.images.listing import list_images
    from nfnet_jax.inference.predict import (
        ImagePrediction,
        predict_images,
        with_class_names,
    )

    cli.prepare_jax()
    # Before the network, which may have to be downloaded.
    images, wrong = list_images(paths)
    for line in wrong:
        cli.complain(line)
    if not images:
        sys.exit(2)
    names = read_class_names(flags.labels) if flags.labels else None
    predictor = _load(flags)
    if names:
        predictor = with_class_names(predictor, names, flags.labels)
    write = _json if flags.json else _block
    answered = not wrong
    for answer in predict_images(predictor, images):
        if isinstance(answer, ImagePrediction):
            print(write(answer.path, answer.best(top)), flush=True)
        else:
            answered = False
            cli.complain(answer.reason)
    if not answered:
        sys.exit(2)


def _check(flags, paths: list[str]) -> int:
    """The number of classes to print."""
    cli.check_network_flags(flags)
    if not paths:
        raise UserError("no images, expected files or directories after the flags")
    top = "5" if flags.top is None else flags.top
    if not re.fullmatch("0*[1-9][0-9]{0,8}", top):
        raise UserError(f"--top is {top!r}, expected a whole number, at least 1")
    return int(top)


def _load(flags):
    from nfnet_jax.inference.predict import published_predictor, run_predictor

    if flags.workdir:
        return run_predictor(flags.workdir)
    from nfnet_jax.weights.load import load_pretrained

    try:
        model, params = load_pretrained(flags.model, flags.weights)
    except ValueError as error:
        raise UserError(f"--model: {error}") from error
    return published_predictor(model, params)


def _block(path: str, best) -> str:
    """The file, and a line for each class."""
    lines = (f"{c.probability:9.2%}  {c.name}" for c in best)
    return "\n".join([one_line(path), *lines, ""])


def _json(path: str, best) -> str:
    classes = [
        {"class": c.index, "name": c.name, "probability": c.probability} for c in best
    ]
    return dumps({"image": path, "classes": classes})


if __name__ == "__main__":
    cli.run(main)
