"""One run of a data loader: data_contender.py ours|torch FOLDER WORKERS BATCH BATCHES

Prints images per second. See benchmark_data.py.
"""

import sys
import time

SIZE = 192
# Workers run ahead by less than this.
AHEAD = 16


def ours(folder: str, workers: int, size: int, count: int):
    """Batches on the device, in the process that trains."""
    import jax

    from nfnet_jax.config import base_config
    from nfnet_jax.data.dataset import load_dataset
    from nfnet_jax.data.loaders import training_batches
    from nfnet_jax.training.sharding import device_mesh

    config = base_config()
    config.data.batch_size, config.data.workers = size, workers
    config.data.augment.random_resized_crop = config.data.augment.flip = True
    dataset = load_dataset(
        f"folder:{folder}", eval_split="val", image_size=SIZE, loader="stream"
    )
    batches = training_batches(dataset.train, config, count, device_mesh())
    for images, _ in batches.feed(0):
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


def main() -> None:
    name, folder, *numbers = sys.argv[1:]
    workers, size, count = map(int, numbers)
    for number, images in enumerate(
        {"ours": ours, "torch": torch}[name](folder, workers, size, count)
    ):
        assert tuple(images.shape) in {(size, SIZE, SIZE, 3), (size, 3, SIZE, SIZE)}
        if number == AHEAD:
            started = time.perf_counter()
    seconds = time.perf_counter() - started
    print(size * (count - 1 - AHEAD) / seconds)


if __name__ == "__main__":
    main()
