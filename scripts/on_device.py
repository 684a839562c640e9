r"""Checks and measurements on an accelerator, in under six minutes, in one JSON file.

    python scripts/on_device.py --pack cifar10.npz             # where CIFAR-10 is
    python scripts/on_device.py --data cifar10.npz --output on_device.json

Compares logits with those of the published code, in float32 and bfloat16; trains
configs/digits.py, and configs/cifar10.py for 100 steps; measures training and inference
of NFNet-F0 (192²) and NF-ResNet-50 (224²) in bfloat16 beside the rate of the device's
matrix product, and timm's networks if PyTorch sees a GPU. The parts are processes with
a time limit each; the file is written anew after each of them. What there is no time
for says so. Exit code 1 if a check failed or a part of this project's broke.

Nothing is fetched. Needed beside jax for the accelerator, flax, optax,
orbax-checkpoint, chex, jaxtyping, scikit-learn, pillow, matplotlib and tqdm:
ml_collections, and this project as a package. For a machine without a network, in this
folder:

    pip download --no-deps --only-binary=:all: -d wheels ml_collections
    pip wheel --no-deps -w wheels .

and there, with the repository, `wheels` and cifar10.npz (40 MB) in this folder:

    python3 -m pip install -q --no-index --no-deps --target /tmp/site wheels/*.whl
    PYTHONPATH=/tmp/site python3 scripts/on_device.py --data cifar10.npz \
        --output on_device.json

Without --data CIFAR-10 is that of TFDS_DATA_DIR, and needs tensorflow-datasets and
array_record. --small runs all of it on a CPU, tiny.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import NamedTuple

PART = pathlib.Path(__file__).with_name("device_part.py")
GOLDEN = "nfnet_f0 nf_resnet50 nf_regnet_b0 skipinit_resnet50 fixup_resnet50"
GOLDEN = [f"{name}_64" for name in GOLDEN.split()] + ["nf_seresnet50_65"]
NETWORKS = {"nfnet_f0": (192, "dm_nfnet_f0"), "nf_resnet50": (224, "nf_resnet50")}
"""Image size, and name in timm."""
PACKED = {"train": 12_800, "test": 2_000}
"""Images that `--pack` takes: those of 100 steps, and enough for an accuracy."""
LEAST_SECONDS = 15
"""A part is not started with less time left."""


class Part(NamedTuple):
    """Arguments of device_part.py, and the seconds after which it is ended.

    A failure of what is not `required`, such as a peer, does not count.
    """

    name: str
    arguments: list[str]
    seconds: float = 90
    required: bool = True


class Report:
    """The file of all results, complete after every part."""

    def __init__(self, path: str, options: dict):
        self.parts: dict[str, dict] = {}
        self._path = pathlib.Path(path)
        self._head = {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "options": options}

    def add(self, part: Part, result: dict) -> None:
        self.parts[part.name] = result | {"required": part.required}
        content = json.dumps(self._head | {"parts": self.parts}, indent=2)
        # Whole or not at all, should this process be ended meanwhile.
        new = self._path.with_name(f"{self._path.name}.new")
        new.write_text(f"{content}\n", encoding="utf-8")
        new.replace(self._path)
        print(summary(part.name, result), flush=True)

    def exit_code(self) -> int:
        required = [part for part in self.parts.values() if part["required"]]
        return int(any(part["status"] == "failed" for part in required))


def main() -> int:
    options = parse_arguments()
    if options.pack:
        return pack(options.pack)
    end = time.monotonic() + options.seconds
    report = Report(options.output, vars(options))
    machine = Part("machine", ["machine"])
    report.add(machine, run(machine, end))
    platform = report.parts["machine"].get("platform")
    if platform == "cpu" and not options.small:
        sys.exit("JAX sees no accelerator here: --small runs on a CPU")
    checks, measurements = plan(options)
    # Checks are not timed and share a GPU; measurements have it for themselves.
    workers = max(1, (os.cpu_count() or 1) // 2) if platform == "gpu" else 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(run, part, end): part for part in checks}
        for future in concurrent.futures.as_completed(futures):
            report.add(futures[future], future.result())
    for part in measurements:
        report.add(part, run(part, end))
    return report.exit_code()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="on_device.json")
    parser.add_argument("--data", help="file that --pack made (default: TFDS)")
    parser.add_argument("--seconds", type=float, default=345, help="of all parts")
    parser.add_argument("--small", action="store_true", help="tiny, on any machine")
    parser.add_argument("--pack", metavar="FILE", help="write CIFAR-10 and end")
    return parser.parse_args()


def plan(options: argparse.Namespace) -> tuple[list[Part], list[Part]]:
    """Checks and measurements, the most important first."""
    data = [f"--data={options.data}"] if options.data else []
    if options.small:
        brief = ["--set=model.name='nf_wrn_10_1'", "--set=data.batch_size=32"]
        return [
            Part("golden fixup_resnet50_64", ["golden", "fixup_resnet50_64"]),
            training("cifar10", 20, [*brief, *data]),
        ], [speed("ours", "nf_wrn_10_1", 32, 4, ["--matrix=256", "--rounds=2"])]
    checks = [Part(f"golden {name}", ["golden", name]) for name in GOLDEN]
    checks.append(training("digits", None, []))
    checks.append(training("cifar10", 100, ["--set=train.dtype='bfloat16'", *data]))
    measurements = []
    for batch in (64, 256, 128, 32):
        for name, (size, timm) in NETWORKS.items():
            measurements.append(speed("ours", name, size, batch))
            if batch == 64:
                measurements.append(speed("timm", timm, size, batch, ["--eager"]))
    for size, timm in NETWORKS.values():
        measurements.append(speed("timm", timm, size, 64))
    return checks, measurements


def training(name: str, steps: int | None, arguments: list[str]) -> Part:
    """The part that trains configs/NAME.py, for so many steps if given."""
    brief = [f"--set=train.steps={steps}", "--set=log.every_steps=10"] if steps else []
    options = ["--set=log.tensorboard=False", "--set=eval.every_epochs=0.0", *brief]
    return Part(name, [name, *options, *arguments], 120)


def speed(kind: str, model: str, size: int, batch: int, arguments=()) -> Part:
    """The part that measures a network on a batch."""
    shape = [f"--size={size}", f"--batch={batch}", "--dtype=bfloat16"]
    name = " ".join([kind, model, f"{size}", f"batch {batch}", *arguments])
    return Part(name, ["speed", kind, model, *shape, *arguments], 120, kind == "ours")


def run(part: Part, end: float) -> dict:
    """Runs a part; its result, or the end of what it printed.

    status: passed, failed, or not run, for want of time before `end`.
    """
    left = end - time.monotonic()
    if left < LEAST_SECONDS:
        return {"status": "not run", "reason": "no time was left"}
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(PART), *part.arguments],
        # Several processes share the device; each would take most of its memory.
        env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, messages = process.communicate(timeout=min(left, part.seconds))
    except subprocess.TimeoutExpired as error:
        # With the processes that it started, which would hold the pipes open.
        os.killpg(process.pid, signal.SIGKILL)
        status = "failed" if left > part.seconds else "not run"
        reason = f"ended after {error.timeout:.0f} s"
        return broken(status, reason, process.communicate()[1])
    try:
        result = json.loads(output.splitlines()[-1])
        passed = all(check["passed"] for check in result["checks"].values())
    except (IndexError, ValueError, TypeError, KeyError):
        return broken("failed", f"exit code {process.returncode}", messages)
    wall = {"wall_seconds": time.monotonic() - started}
    return {"status": "passed" if passed else "failed"} | wall | result


def broken(status: str, reason: str, messages: str) -> dict:
    """The result of a part without one, and the last lines of its messages."""
    return {"status": status, "reason": reason, "output": messages.splitlines()[-30:]}


def summary(name: str, result: dict) -> str:
    """A line about one part."""
    words = [f"{result['status']:8} {name}", result.get("reason", "")]
    for label, check in result.get("checks", {}).items():
        bounds = ", ".join(f"{k} {bound:.4g}" for k, bound in check["expected"].items())
        words.append(f"{label} {known(check['value']):.4g} ({bounds})")
    for task, rate in result.get("images_per_second", {}).items():
        words.append(f"{task} {known(rate):.0f} images/s")
    return "  ".join(filter(None, words))


def known(value: float | None) -> float:
    """The number, NaN where JSON has none."""
    return float("nan") if value is None else value


def pack(path: str) -> int:
    """Writes the first images of CIFAR-10 as arrays that `--data` takes."""
    import numpy as np

    sys.path.insert(0, str(PART.parents[1]))
    from nfnet_jax.data.load import load_dataset

    dataset = load_dataset(name="tfds:cifar10")
    arrays = {}
    for part, count in PACKED.items():
        split = getattr(dataset, part)
        arrays[f"{part}_images"] = split.images[:count]
        arrays[f"{part}_labels"] = split.labels[:count]
    np.savez_compressed(path, **arrays)
    print(f"{path}: {os.path.getsize(path) / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
