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
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

CONTENDER = pathlib.Path(__file__).with_name("data_contender.py")
FILES = 512
HEIGHT, WIDTH = 375, 500


def main() -> None:
    options = parse_arguments()
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
    parser.add_argument("--peer_python", required=True)
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
    numbers = (options.workers, options.batch, options.batches)
    command = [python, str(CONTENDER), name, folder, *map(str, numbers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rate, cost = done.stdout.split()[-2:]
    return float(rate), float(cost)


if __name__ == "__main__":
    main()
