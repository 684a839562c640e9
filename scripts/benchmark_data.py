"""Throughput of the stream loader beside PyTorch's, in alternating runs.

    python scripts/benchmark_data.py --peer_python VENV/bin/python --workers 2

Both decode JPEGs of 500 x 375 pixels from a folder, take random-resized crops of 192
pixels and flip half of them, bicubic, uint8, in batches. PyTorch does it with its
DataLoader and torchvision's transforms of Pillow images, run by --peer_python, any
Python with torch, torchvision and Pillow. A run counts --batches after the first ones
and goes on after them, so that neither starting workers nor what they made ahead
counts. CPU time depends little on what else the machine does, images per second do.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

FILES = 512
HEIGHT, WIDTH = 375, 500
SIZE = 192
# Workers run ahead by less than this.
AHEAD = 16


def main() -> None:
    options = parse_arguments()
    if options.run:
        print(*run(*options.run, options.workers, options.batch, options.batches))
        return
    pythons = {"ours": sys.executable, "torch": options.peer_python}
    rates: dict[str, list[float]] = {name: [] for name in pythons}
    costs: dict[str, list[float]] = {name: [] for name in pythons}
    with tempfile.TemporaryDirectory() as folder:
        kilobytes = write_images(pathlib.Path(folder))
        for _ in range(options.rounds):
            for name, python in pythons.items():
                rate, cost = measure(name, python, folder, options)
                rates[name].append(rate)
                costs[name].append(cost)
    compare(rates, "images/s", 0)
    compare(costs, "ms of CPU time an image", 2)
    if options.output:
        report = vars(options) | {"kilobytes_per_image": kilobytes}
        report |= {"images_per_second": rates, "cpu_ms_per_image": costs}
        pathlib.Path(options.output).write_text(json.dumps(report, indent=2) + "\n")


def compare(values: dict[str, list[float]], unit: str, digits: int) -> None:
    """Prints medians, all values and the ratio of the medians."""
    medians = {name: statistics.median(each) for name, each in values.items()}
    for name, each in values.items():
        every = ", ".join(f"{value:.{digits}f}" for value in each)
        print(f"{name:6} {medians[name]:6.{digits}f} {unit}   ({every})")
    print(f"ratio  {medians['ours'] / medians['torch']:6.2f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer_python", help="Python with torch and torchvision")
    parser.add_argument(
        "--run", nargs=2, metavar=("ours|torch", "FOLDER"), help="one run, as printed"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=60, help="counted of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", help="JSON file for all measurements")
    return parser.parse_args()


def write_images(folder: pathlib.Path) -> float:
    """Writes the set and returns the mean size of a file in kB."""
    sizes = []
    for i in range(FILES):
        part = "val" if i % 64 == 0 else "train"
        path = folder / part / f"class{i // 64 % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(path, "JPEG", quality=90)
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes) / 1000


def picture(seed: int) -> Image.Image:
    """Smooth colours under noise: a JPEG of about the size of a photograph's."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (HEIGHT // 16, WIDTH // 16, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    noise = random.randint(-12, 13, (HEIGHT, WIDTH, 1))
    pixels = np.clip(np.asarray(smooth).astype(int) + noise, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def measure(name: str, python: str, folder: str, options) -> tuple[float, float]:
    """Images per second of one run, and milliseconds of CPU time an image."""
    command = [python, __file__, "--run", name, folder]
    for key in ("workers", "batch", "batches"):
        command += [f"--{key}", str(getattr(options, key))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rate, cost = done.stdout.split()[-2:]
    return float(rate), float(cost)


# --- One run ----------------------------------------------------------------------


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
    """Batches of PyTorch's ImageNet example, before normalization."""
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
    """CPU time of this process and all below it; Linux only."""
    ticks, children = {}, {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        # Processes may end meanwhile.
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            ticks[int(folder.name)] = int(fields[11]) + int(fields[12])
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    family = [os.getpid()]
    for process in family:
        family += children.get(process, [])
    return sum(ticks[process] for process in family) / os.sysconf("SC_CLK_TCK")


def run(name: str, folder: str, workers: int, size: int, count: int):
    """Images per second of a loader, and milliseconds of CPU time an image takes in the
    whole process tree."""
    loader = {"ours": ours, "torch": torch}[name]
    # Batches at the end keep the workers busy until the last one that counts.
    batches = loader(folder, workers, size, count + 2 * AHEAD)
    with contextlib.closing(batches):
        for number, images in enumerate(batches):
            assert tuple(images.shape) in {(size, SIZE, SIZE, 3), (size, 3, SIZE, SIZE)}
            if number == AHEAD:
                started, used = time.perf_counter(), cpu_seconds()
            if number == AHEAD + count:
                break
        seconds, used = time.perf_counter() - started, cpu_seconds() - used
    return size * count / seconds, 1000 * used / (size * count)


if __name__ == "__main__":
    main()
