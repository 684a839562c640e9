"""The loader that suits a split: `memory` or `stream`."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nfnet_jax.data.dataset import Dataset, EncodedSplit, Split
from nfnet_jax.data.loading import in_memory as memory
from nfnet_jax.data.loading.batches import Batches
from nfnet_jax.utils.errors import UserError


def choose_loader(config: ConfigDict) -> str:
    """`config.data.loader`; `stream` instead of `auto` for random-resized crops of
    images that the memory loader would have resized before."""
    loader = config.data.loader
    crops = config.data.augment.random_resized_crop and config.data.image_size
    return "stream" if loader == "auto" and crops else loader


def training_batches(
    split: Split | EncodedSplit, config: ConfigDict, steps: int, mesh: Mesh
) -> Batches:
    """Shuffled, cropped and flipped batches for `steps` updates."""
    if isinstance(split, Split):
        return memory.training_batches(split, config, mesh)
    # Imported here: Grain takes a second that data in memory need not wait.
    from nfnet_jax.data.loading import streaming as stream

    return stream.training_batches(split, config, steps, mesh)


def evaluation_batches(
    split: Split | EncodedSplit, config: ConfigDict, mesh: Mesh
) -> Batches:
    """One pass over the examples, in batches of `config.data.eval_batch_size`."""
    size = config.data.eval_batch_size
    if isinstance(split, Split):
        return memory.evaluation_batches(split, size, mesh)
    from nfnet_jax.data.loading import streaming as stream

    return stream.evaluation_batches(split, config, size, mesh)


def check_shape(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError where a crop does not fit the images of `dataset`."""
    height, width, _ = dataset.image_shape
    streamed = isinstance(dataset.train, EncodedSplit)
    if streamed and config.data.augment.alternate_flip:
        raise UserError(
            "data.augment.alternate_flip is True, expected False for data that is "
            f"streamed, as {dataset.name} is"
        )
    crops = config.data.augment.random_resized_crop
    if crops and streamed and height != width:
        raise UserError(
            f"data.augment.random_resized_crop makes squares, {dataset.name} has "
            f"images of {height}x{width}: set data.image_size"
        )
