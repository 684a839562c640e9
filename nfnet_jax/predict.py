"""Names what images show, by a run of yours or by published weights.

    python -m nfnet_jax.predict --workdir runs/cifar10 photo.jpg more_photos/
    python -m nfnet_jax.predict --model nfnet_f0 --weights nfnet_f0 photo.jpg

Prints the most probable classes of every image. An image that cannot be read is named
on stderr and does not affect the others; the exit code is then 2.
"""

import sys

from nfnet_jax import cli
from nfnet_jax.config.kinds import Int, Switch
from nfnet_jax.utils.errors import UserError, one_line
from nfnet_jax.utils.strict_json import dumps


def main(argv: list[str]) -> None:
    """Prints the most probable classes of every image, as they become ready."""
    flags = cli.parse(
        argv,
        __doc__,
        arguments="IMAGE_OR_DIRECTORY ...",
        json=Switch(False, "print one JSON object for each image, on a line"),
        workdir="directory of a run of nfnet_jax.train",
        model="name of a published network, instead of --workdir",
        weights="weights of --model: a file, or a published name",
        labels="text file with the name of a class on each line",
        top=Int(5, "number of classes to print for each image", "[1, inf)"),
    )
    cli.check_network_flags(flags)
    if not flags.arguments:
        raise UserError("no images, expected files or directories after the flags")
    from nfnet_jax.data.class_names import read_class_names
    from nfnet_jax.data.images.listing import list_images
    from nfnet_jax.inference import predict

    cli.prepare_jax()
    # Before the network, which may have to be downloaded.
    images, wrong = list_images(flags.arguments)
    for line in wrong:
        cli.complain(line)
    if not images:
        sys.exit(2)
    names = read_class_names(flags.labels) if flags.labels else None
    if flags.workdir:
        predictor = predict.run_predictor(flags.workdir)
    else:
        predictor = predict.published_predictor(*cli.load_published(flags))
    if names:
        predictor = predict.with_class_names(predictor, names, flags.labels)
    write = _json if flags.json else _block
    answered = not wrong
    for answer in predict.predict_images(predictor, images):
        if isinstance(answer, predict.ImagePrediction):
            print(write(answer.path, answer.best(flags.top)), flush=True)
        else:
            answered = False
            cli.complain(answer.reason)
    if not answered:
        sys.exit(2)


def _block(path: str, best) -> str:
    """File name, and a line for each class."""
    lines = (f"{c.probability:9.2%}  {c.name}" for c in best)
    return "\n".join([one_line(path), *lines, ""])


def _json(path: str, best) -> str:
    classes = [
        {"class": c.index, "name": c.name, "probability": c.probability} for c in best
    ]
    return dumps({"image": path, "classes": classes})


if __name__ == "__main__":
    cli.run(main)
