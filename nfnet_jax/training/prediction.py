"""What a network says about image files."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nfnet_jax.data.class_names import imagenet_class_names
from nfnet_jax.data.images import open_image
from nfnet_jax.data.preprocess import Preprocessing
from nfnet_jax.errors import UserError
from nfnet_jax.models.network import Network
from nfnet_jax.models.registry import find
from nfnet_jax.training.trained import load_run

BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A network, its variables, and how to show it an image.

    `class_names`: one for each logit. `dtype`: that the network computes in.
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


class Prediction(NamedTuple):
    """Probabilities float32 [num_classes] of one image file, and their names."""

    path: str
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    def best(self, count: int) -> list[Guess]:
        """The `count` most probable classes, all where there are fewer."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        names, values = self.class_names, self.probabilities.tolist()
        return [Guess(i, names[i], values[i]) for i in order.tolist()]


def published_predictor(model: Network, params: dict) -> Predictor:
    """For published weights: images are prepared as their publisher did."""
    spec, variant = model.spec, find(model.spec.name)
    names = None
    if spec.num_classes == variant.num_classes == 1000:
        names = imagenet_class_names()
    return Predictor(
        model,
        {"params": params},
        Preprocessing(variant.test_size, variant.crop, variant.mean, variant.std),
        _or_numbers(names or (), spec.num_classes),
    )


def run_predictor(workdir: str) -> Predictor:
    """For the last checkpoint of the run in `workdir`, as `trained.load_run` gives it.

    Those are the averaged parameters, which without an average (optim.ema_decay = 0)
    equal the last ones. Images are prepared as those it was evaluated on.

    Raises:
      UserError: no run, no complete checkpoint, or images that no file can hold.
    """
    trained = load_run(workdir)
    facts = trained.facts
    height, width, channels = facts.image_shape
    if height != width or channels not in (1, 3):
        raise UserError(
            f"--workdir: {workdir!r} was trained on images {height}x{width} with "
            f"{channels} channels, expected squares that are grey or RGB"
        )
    return Predictor(
        trained.model,
        trained.variables,
        Preprocessing(
            trained.eval_image_size or height, trained.crop, facts.mean, facts.std
        ),
        _or_numbers(facts.class_names, trained.model.spec.num_classes),
        trained.dtype,
    )


def with_class_names(
    predictor: Predictor, names: tuple[str, ...], source: str
) -> Predictor:
    """The same network with the names that were read from `source`.

    Its own names in another order stay in that of the logits.

    Raises:
      UserError: not as many names as logits, or one of its own for another logit.
    """
    count = len(predictor.class_names)
    if len(names) != count:
        raise UserError(
            f"{source} has {len(names)} names, expected {count}, the classes of the "
            "network"
        )
    own = [_bare(i, name) for i, name in enumerate(predictor.class_names)]
    if sorted(own) == sorted(names):
        return predictor
    places = {name: i for i, name in enumerate(own)}
    for i, name in enumerate(names):
        if name in places and own[i] != name:
            raise UserError(
                f"{source}, line {i + 1} is {name!r}, which is class {places[name]} of "
                f"the network, expected a name of class {i}, {own[i]!r}"
            )
    return dataclasses.replace(predictor, class_names=names)


def predict(predictor: Predictor, paths: Sequence[str]) -> Iterator[Prediction]:
    """One prediction for each image file, in their order, as they become ready.

    All batches have the same size, so that the network is compiled once.

    Raises:
      UserError: a file that is no image, or probabilities that are no numbers.
    """
    batch_size = min(BATCH_SIZE, len(paths))

    @jax.jit
    def probabilities(variables, images):
        images = images.astype(predictor.dtype)
        logits: Any = predictor.model.apply(variables, images, train=False)
        return jax.nn.softmax(logits)

    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        images = np.stack([predictor.preprocess(open_image(path)) for path in batch])
        padding = [(0, batch_size - len(batch)), (0, 0), (0, 0), (0, 0)]
        rows = probabilities(predictor.variables, np.pad(images, padding))
        for path, row in zip(batch, np.asarray(rows), strict=False):
            if not np.isfinite(row).all():
                raise UserError(
                    f"{path}: the network's outputs are not finite, expected weights "
                    "of a training that did not diverge"
                )
            yield Prediction(path, row, predictor.class_names)


def _bare(index: int, name: str) -> str:
    """The synset of a class of ImageNet, or the name of any other."""
    before = f"class {index} ("
    return name[len(before) : -1] if name.startswith(before) else name


def _or_numbers(names: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` names; a network may have more logits than its data had classes."""
    return (*names[:count], *(f"class {i}" for i in range(len(names), count)))
