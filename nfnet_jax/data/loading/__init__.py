"""Batches of a data set: its splits in device memory, or streamed by worker processes.

Indices, by the names that they have everywhere in `nfnet_jax.data`:

| name         | counts                                                                |
|--------------|-----------------------------------------------------------------------|
| batch_index  | batches of a run, or of one evaluation                                |
| local row    | rows of a batch; `local_rows` selects those of one process or device  |
| example_id   | examples of a run: batch_index · batch size + row of the batch        |
| draw_id      | images drawn for them: example_id · d + 0 … d - 1; d = 2 with mixing  |
| stream_index | places of the draws in the endless stream of shuffled epochs          |
| row          | examples of the split, in its order                                   |
| piece_index  | pieces of the batches of one process, which workers decode            |
| turn         | pieces that one iterator reads, from 0; each fills a shared slot      |

Ids and indices count from the start of a run, so that what they stand for depends on
nothing but the seed.
"""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nfnet_jax.data.batches import Batches
from nfnet_jax.data.dataset import Dataset, EncodedSplit, Split
from nfnet_jax.data.loading import in_memory
from nfnet_jax.utils.errors import UserError


def choose_loader(data: ConfigDict) -> str:
    """`config.data.loader`; `stream` instead of `auto` for random-resized crops of
    images that the memory loader would have resized before."""
    resized = data.augment.random_resized_crop and data.image_size
    return "stream" if data.loader == "auto" and resized else data.loader


def check_stream(data: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError if a stream of `dataset` cannot augment by `data.augment`."""
    if not isinstance(dataset.train, EncodedSplit):
        return
    height, width, _ = dataset.image_shape
    if data.augment.alternate_flip:
        raise UserError(
            "data.augment.alternate_flip is True, expected False for data that is "
            f"streamed, as {dataset.name} is"
        )
    if data.augment.random_resized_crop and height != width:
        raise UserError(
            f"data.augment.random_resized_crop makes squares, {dataset.name} has "
            f"images of {height}x{width}: set data.image_size"
        )


def training_batches(
    split: Split | EncodedSplit,
    data: ConfigDict,
    mesh: Mesh,
    *,
    seed: int,
    per_example: int,
    steps: int,
) -> Batches:
    """Shuffled, cropped and flipped batches for `steps` updates.

    `data`: `config.data`. `per_example`: see `mixing.drawn_per_example`.
    """
    if isinstance(split, Split):
        return in_memory.training_batches(
            split, data, mesh, seed=seed, per_example=per_example
        )
    # Imported here: data in memory need not wait a second for Grain.
    from nfnet_jax.data.loading import streaming

    return streaming.training_batches(
        split, data, mesh, seed=seed, per_example=per_example, steps=steps
    )


def evaluation_batches(
    split: Split | EncodedSplit, data: ConfigDict, mesh: Mesh
) -> Batches:
    """One pass over the examples, in batches of `data.eval_batch_size`."""
    if isinstance(split, Split):
        return in_memory.evaluation_batches(split, data.eval_batch_size, mesh)
    from nfnet_jax.data.loading import streaming

    return streaming.evaluation_batches(split, data, mesh)
