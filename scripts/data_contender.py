"""One run of a data loader: data_contender.py ours|torch FOLDER WORKERS BATCH BATCHES

Prints images per second, and milliseconds of CPU time that an image takes in the whole
process tree. See benchmark_data.py.
"""

import contextlib
import os
import pathlib
import sys
import time

SIZE = 192
# Workers run ahead by less than this.
AHEAD = 16


def ours(folder: str, workers: int, size: int, count: int):
    """Batches on the device, in the process that trains."""
    import jax

    from nfnet_jax.config import base_config
    from nfnet_jax.data.load import load_dataset
    from nfnet_jax.data.loading import training_batches
    from nfnet_jax.training.parallel import device_mesh

    config = base_config()
    config.data.batch_size, config.data.workers = size, workers
    config.data.augment.random_resized_crop = config.data.augment.flip = True
    dataset = load_dataset(
        f"folder:{folder}", eval_split="val", image_size=SIZE, loader="stream"
    )
    batches = training_batches(
        dataset.train, config.data, device_mesh(), seed=0, per_example=1, steps=count
    )
    with contextlib.closing(batches.iterate(0)) as host_batches:
        for images, _ in host_batches:
            yield jax.block_until_ready(images)


def torch(folder: str, workers: int, size: int, count: int):
    """Batches as PyTorch's ImageNet example makes them, before normalization."""
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision import datasets, transforms

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                SIZE, interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )
    dataset = datasets.ImageFolder(f"{folder}/train", transform)
    sampler = RandomSampler(dataset, replacement=True, num_samples=size * count)
    loader = DataLoader(dataset, size, sampler=sampler, num_workers=workers)
    for images, _ in loader:
        yield images


def cpu_seconds() -> float:
    """Used so far by this process and all below it; Linux only."""
    ticks, children = {}, {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        # Others may end meanwhile.
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            ticks[int(folder.name)] = int(fields[11]) + int(fields[12])
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    family = [os.getpid()]
    for process in family:
        family += children.get(process, [])
    return sum(ticks[process] for process in family) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    name, folder, *numbers = sys.argv[1:]
    workers, size, count = map(int, numbers)
    loader = {"ours": ours, "torch": torch}[name]
    # Those at the end keep the workers busy until the last one that counts.
    with contextlib.closing(loader(folder, workers, size, count + 2 * AHEAD)) as run:
        for number, images in enumerate(run):
            shape = tuple(images.shape)
            assert shape in {(size, SIZE, SIZE, 3), (size, 3, SIZE, SIZE)}
            if number == AHEAD:
                started, used = time.perf_counter(), cpu_seconds()
            if number == AHEAD + count:
                break
        seconds, used = time.perf_counter() - started, cpu_seconds() - used
    print(size * count / seconds, 1000 * used / (size * count))


if __name__ == "__main__":
    main()
