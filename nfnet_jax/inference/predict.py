"""Class probabilities of image files."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nfnet_jax.data.class_names import composed, imagenet_class_names
from nfnet_jax.data.images.decode import open_image
from nfnet_jax.data.images.preprocess import Preprocessing
from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import find
from nfnet_jax.training.trained import load_run
from nfnet_jax.utils.errors import UserError

BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A network with variables, preprocessing of images and a name for each logit.

    `dtype`: type of the images, in which the network computes.
    """

    model: Network
    variables: dict[str, Any]
    preprocess: Preprocessing
    class_names: tuple[str, ...]
    dtype: str = "float32"


class Guess(NamedTuple):
    """A class and its probability."""

    index: int  # type: ignore[assignment]
    name: str
    probability: float


class ImagePrediction(NamedTuple):
    """Probabilities float32 [num_classes] of one image file, with class names."""

    path: str
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    def best(self, count: int) -> list[Guess]:
        """The `count` most probable classes, all where there are fewer."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        names, values = self.class_names, self.probabilities.tolist()
        return [Guess(i, names[i], values[i]) for i in order.tolist()]


class ImageFailure(NamedTuple):
    """An image file without a prediction; `reason` is one line with its path."""

    path: str
    reason: str


def published_predictor(model: Network, params: dict) -> Predictor:
    """Predictor with published weights and their publisher's preprocessing."""
    spec, variant = model.spec, find(model.spec.name)
    of_imagenet = spec.num_classes == variant.num_classes == 1000
    names = imagenet_class_names() if of_imagenet else ()
    return Predictor(
        model,
        {"params": params},
        Preprocessing(variant.test_size, variant.crop, variant.mean, variant.std),
        _or_numbers(names, spec.num_classes),
    )


def run_predictor(workdir: str) -> Predictor:
    """Predictor with the averaged parameters of the last checkpoint in `workdir`.

    Without an average (optim.ema_decay = 0), these equal the last parameters. Images
    are prepared like those of the run's evaluation.

    Raises:
      UserError: no run, no complete checkpoint, or images that no file can hold.
    """
    trained = load_run(workdir)
    facts = trained.data_spec
    height, width, channels = facts.image_shape
    if height != width or channels not in (1, 3):
        raise UserError(
            f"--workdir: {workdir!r} was trained on images {height}x{width} with "
            f"{channels} channels, expected squares that are grey or RGB"
        )
    size = trained.eval_image_size or height
    preprocess = Preprocessing(size, trained.crop, facts.mean, facts.std)
    names = _or_numbers(facts.class_names, trained.model.spec.num_classes)
    network = trained.model, trained.variables
    return Predictor(*network, preprocess, names, trained.dtype)


def with_class_names(
    predictor: Predictor, names: tuple[str, ...], source: str
) -> Predictor:
    """The same predictor with the names that were read from `source`.

    The network's own names in any order stay in the order of the logits.

    Raises:
      UserError: not as many names as logits, or the name of another logit.
    """
    count = len(predictor.class_names)
    if len(names) != count:
        raise UserError(
            f"{source} has {len(names)} names, expected {count}, the classes of the "
            "network"
        )
    own = composed([_bare(i, name) for i, name in enumerate(predictor.class_names)])
    if sorted(own) == sorted(composed(names)):
        return predictor
    folded = [name.casefold() for name in own]
    places = {name: i for i, name in enumerate(folded)}
    for i, name in enumerate(name.casefold() for name in composed(names)):
        if name in places and folded[i] != name:
            raise UserError(
                f"{source}, line {i + 1} is {names[i]!r}, which is class "
                f"{places[name]} of the network, expected a name of class {i}, "
                f"{own[i]!r}"
            )
    return dataclasses.replace(predictor, class_names=names)


def predict_images(
    predictor: Predictor, paths: Sequence[str]
) -> Iterator[ImagePrediction | ImageFailure]:
    """Yields a prediction or a failure for each image file, in order, when ready.

    Failures are files that cannot be read and outputs that are not finite. All batches
    have the same size, so that the network is compiled once.
    """
    batch_size = min(BATCH_SIZE, len(paths))

    @jax.jit
    def probabilities(variables, images):
        images = images.astype(predictor.dtype)
        logits: Any = predictor.model.apply(variables, images, train=False)
        return jax.nn.softmax(logits)

    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        shown = [_show(predictor, path) for path in batch]
        images = [image for image in shown if isinstance(image, np.ndarray)]
        rows = iter(())
        if images:
            padding = [(0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)]
            padded = np.pad(np.stack(images), padding)
            rows = iter(np.asarray(probabilities(predictor.variables, padded)))
        for path, image in zip(batch, shown, strict=True):
            if isinstance(image, ImageFailure):
                yield image
            else:
                yield _answer(path, next(rows), predictor.class_names)


def _show(predictor: Predictor, path: str) -> np.ndarray | ImageFailure:
    try:
        return predictor.preprocess(open_image(path))
    except UserError as error:
        return ImageFailure(path, str(error))


def _answer(
    path: str, probabilities: np.ndarray, class_names: tuple[str, ...]
) -> ImagePrediction | ImageFailure:
    if np.isfinite(probabilities).all():
        return ImagePrediction(path, probabilities, class_names)
    return ImageFailure(
        path,
        f"{path}: the network's outputs are not finite, expected weights of a training"
        " that did not diverge",
    )


def _bare(index: int, name: str) -> str:
    """The synset of a class of ImageNet, or the name of any other."""
    before = f"class {index} ("
    return name[len(before) : -1] if name.startswith(before) else name


def _or_numbers(names: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` names, numbers for logits beyond the classes of the data."""
    return (*names[:count], *(f"class {i}" for i in range(len(names), count)))
