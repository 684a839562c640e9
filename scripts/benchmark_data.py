"""Throughput of the stream loader beside PyTorch's, in alternating runs.

    python scripts/benchmark_data.py --peer_python VENV/bin/python --workers 2

Both decode JPEGs of 500 x 375 pixels from a folder, take random-resized crops of 192
pixels and flip half of them, bicubic, uint8, in batches. PyTorch does it with its
DataLoader and torchvision's transforms of Pillow images, run by --peer_python, any
Python with torch, torchvision and Pillow. A run counts the batches after the first
ones, until the last, so that neither starting workers nor what they made ahead counts.
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
    with tempfile.TemporaryDirectory() as folder:
        kilobytes = write_images(pathlib.Path(folder))
        for _ in range(options.rounds):
            for name, python in pythons.items():
                rates[name].append(measure(name, python, folder, options))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        every = ", ".join(f"{value:.0f}" for value in values)
        print(f"{name:6} {medians[name]:6.0f} images/s   ({every})")
    print(f"ratio  {medians['ours'] / medians['torch']:6.2f}")
    if options.output:
        report = vars(options) | {"kilobytes_per_image": kilobytes, "rates": rates}
        pathlib.Path(options.output).write_text(json.dumps(report, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer_python", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=60, help="of a run")
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


def measure(name: str, python: str, folder: str, options) -> float:
    """Images per second of one run."""
    numbers = (options.workers, options.batch, options.batches)
    command = [python, str(CONTENDER), name, folder, *map(str, numbers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
